"use strict";
(() => {
  const $ = id => document.getElementById(id);
  const asked = JSON.parse($("questions").textContent);
  const questions = asked.questions;
  const key = `oatflow/${asked.experiment}/${asked.round}/${asked.digest}`;
  const WORDS = { left: "A is better", right: "B is better", tie: "Tie", skip: "Skipped" };
  const KEYS = {
    ArrowLeft: "left", ArrowRight: "right", ArrowDown: "down", t: "tie", T: "tie", s: "skip", S: "skip",
    u: "undo", U: "undo", Backspace: "undo",
  };

  let name = "";       // Who labels.
  let answers = {};    // Verdict by duel.
  let sent = [];       // Duels whose answers are in the ledger: what was sent stands.
  let order = [];      // Duels in the order in which they were answered, for undo.
  let served = false;  // Whether `oatflow label --serve` takes the answers.
  let forgets = false; // Whether this browser keeps nothing.

  /* What is kept */

  function load(part) {
    try { return JSON.parse(localStorage.getItem(`${key}/${part}`)); } catch { return null; }
  }
  function keep(part, value) {
    try {
      localStorage.setItem(`${key}/${part}`, JSON.stringify(value));
    } catch {
      if (!forgets) trouble("This browser keeps nothing for this page: download your answers before you close or reload it.");
      forgets = true;
    }
  }
  const person = who => who.trim().replace(/\s+/g, " ");
  const place = () => `by/${name.toLowerCase()}`;
  function save() { keep(place(), { answers, sent, order }); }

  function become(who) {
    name = person(who);
    keep("name", name);
    const known = new Set(questions.map(one => one.id));
    const kept = load(place()) || {};
    answers = Object.fromEntries(Object.entries(kept.answers || {}).filter(([id]) => known.has(id)));
    sent = (kept.sent || []).filter(id => id in answers);
    order = (kept.order || []).filter(id => id in answers);
  }

  /* What is shown */

  function show(view) {
    for (const one of ["start", "duel", "end"]) $(one).hidden = one !== view;
    $("choices").hidden = $("stop").hidden = view !== "duel";
    document.documentElement.style.setProperty("--foot", `${$("choices").offsetHeight}px`);
    scrollTo(0, 0);
  }
  function trouble(text) { $("trouble").textContent = text; $("trouble").hidden = !text; }
  function fill(id, text) {
    $(id).textContent = text.trim() ? text : text ? "(only blanks)" : "(no text)";
    $(id).classList.toggle("empty", !text.trim());
  }
  const done = () => Object.keys(answers).length;
  const next = () => questions.find(one => !(one.id in answers));

  function progress() {
    const all = questions.length;
    $("count").textContent = `${done()} of ${all}`;
    $("progress").setAttribute("aria-valuemax", all);
    $("progress").setAttribute("aria-valuenow", done());
    $("progress").firstElementChild.style.width = `${all ? 100 * done() / all : 100}%`;
  }

  function go(focus = true) {
    progress();
    const one = next();
    if (!one) return finish();
    fill("prompt", one.prompt);
    fill("left", one.left);
    fill("right", one.right);
    const last = order.at(-1);
    $("last").textContent = last ? `Last: ${WORDS[answers[last]]}.` : `Labelling as ${name}.`;
    $("undo").disabled = !last;
    show("duel");
    $("tie-key").textContent = scrolls() ? "T" : "↓";
    if (focus) $("duel").querySelector("h1").focus({ preventScroll: true });
  }

  function finish() {
    const open = questions.length - done(), unsent = done() - sent.length;
    $("end-title").textContent = open ? `${done()} of ${questions.length} answered` : "All answered. Thank you!";
    $("end-text").textContent = !unsent && sent.length
      ? `Your answers have arrived.${open ? " Go on whenever you like." : " You can close this page."}`
      : served ? "Send your answers to finish. What is sent cannot be changed any more."
      : "Download your answers, and give the file to whoever asked you.";
    const tally = Object.entries(WORDS).map(([verdict, words]) => {
      const row = document.createElement("div");
      row.append(document.createElement("dt"), document.createElement("dd"));
      row.firstChild.textContent = words;
      row.lastChild.textContent = Object.values(answers).filter(one => one === verdict).length;
      return row;
    });
    $("tally").replaceChildren(...tally);
    $("send").hidden = !served || !unsent;
    $("send").disabled = false;
    $("download").classList.toggle("primary", !served);
    $("download").disabled = !done();
    $("back").textContent = open ? "Go on labelling" : "Undo the last answer";
    $("back").hidden = !open && !order.length;
    $("sent").textContent = "";
    show("end");
    (served && unsent ? $("send") : $("end-title")).focus({ preventScroll: true });
  }

  const scrolls = () => document.documentElement.scrollHeight > innerHeight + 1;

  /* What is done */

  function answer(verdict) {
    const one = next();
    if (!one) return;
    answers[one.id] = verdict;
    order.push(one.id);
    save();
    go();
    $("said").textContent = `${WORDS[verdict]}. ${next() ? `Duel ${done() + 1} of ${questions.length}.` : "All answered."}`;
  }

  function undo() {
    const last = order.pop();
    if (!last) return;
    const was = answers[last];
    delete answers[last];
    save();
    go();
    $("said").textContent = `Undone: ${WORDS[was]}. Duel ${done() + 1} of ${questions.length}.`;
  }

  const line = id => ({ annotator: name, duel_id: id, questions: asked.digest, verdict: answers[id] });
  const given = () => questions.map(one => one.id).filter(id => id in answers);

  function download() {
    const text = given().map(id => JSON.stringify(line(id)) + "\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
    link.download = `answers-${name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-")}.jsonl`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    $("sent").textContent = `Downloaded as ${link.download}.`;
  }

  async function send() {
    $("send").disabled = true;
    trouble("");
    const now = given().filter(id => !sent.includes(id));
    try {
      const reply = await fetch("answers", {
        method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ answers: now.map(line) }),
      });
      const told = await reply.json();
      if (!reply.ok) throw new Error(told.error);
      sent.push(...now);
      order = order.filter(id => !sent.includes(id));
      save();
      finish();
    } catch (error) {
      $("send").disabled = false;
      trouble(`The answers could not be sent: ${error.message || "no reply"}. They are kept here; try again, or download them.`);
    }
  }

  /* Take over what the ledger has of this person already, from this browser or another. */
  async function meet() {
    served = false;
    if (!location.protocol.startsWith("http")) return;
    try {
      const reply = await fetch(`answers?annotator=${encodeURIComponent(name)}`);
      if (!reply.ok) return;
      const there = (await reply.json()).answers;
      served = true;
      Object.assign(answers, there);
      sent = Object.keys(there);
      order = order.filter(id => !(id in there));
      save();
    } catch { /* Not served by oatflow: answers are downloaded. */ }
  }

  async function begin(who) {
    become(who);
    await meet();
    go();
  }

  /* Who says so */

  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || !$("start").hidden || !(event.key in KEYS)) return;
    let wish = KEYS[event.key];
    if (wish === "down") {
      // Where there is more to read, the key scrolls, at the end of the text too: nobody shall say so by accident.
      if (scrolls()) return;
      wish = "tie";
    }
    if (wish !== "undo" && $("duel").hidden) return;
    event.preventDefault();
    // A key held down would answer duels that nobody has read.
    if (event.repeat) return;
    if (wish === "undo") undo(); else answer(wish);
  });
  addEventListener("resize", () => { if (!$("duel").hidden) $("tie-key").textContent = scrolls() ? "T" : "↓"; });
  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.addEventListener("click", () => answer(button.dataset.verdict));
  }
  $("undo").addEventListener("click", undo);
  $("stop").addEventListener("click", finish);
  $("back").addEventListener("click", () => next() ? go() : undo());
  $("download").addEventListener("click", download);
  $("send").addEventListener("click", send);
  $("other").addEventListener("click", () => { $("name").value = ""; show("start"); $("name").focus(); });
  $("who").addEventListener("submit", event => { event.preventDefault(); if (person($("name").value)) begin($("name").value); });

  // The first line is the question; what follows explains it, and would be in the way at every duel.
  const [question, ...rest] = asked.guideline.trim().split("\n");
  const more = rest.join("\n").trim();
  document.title = `${question.slice(0, 80)} · ${asked.experiment}, round ${asked.round}`;
  $("more").hidden = !more;
  $("where").textContent = `${asked.experiment}, round ${asked.round}`;
  for (const one of document.querySelectorAll(".guideline")) one.textContent = question;
  for (const one of document.querySelectorAll(".rest")) one.textContent = more;
  progress();
  const before = load("name");
  if (before) begin(before); else { show("start"); $("name").focus(); }
})();
