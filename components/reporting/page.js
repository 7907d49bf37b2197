"use strict";
for (const tools of document.querySelectorAll("[data-search]")) {
  const [box, kind, told] = ["input", "select", "output"].map(name => tools.querySelector(name));
  const articles = [...document.getElementById(tools.dataset.search).querySelectorAll("article")];
  const texts = articles.map(article => article.textContent.toLowerCase());
  const search = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    articles.forEach((article, place) => {
      const fits = !kind.value || article.dataset.outcome === kind.value;
      article.hidden = !(fits && words.every(word => texts[place].includes(word)));
    });
    told.textContent = `${articles.filter(article => !article.hidden).length} of ${articles.length}`;
  };
  box.addEventListener("input", search);
  kind.addEventListener("change", search);
  tools.hidden = false;
  search();
}
for (const button of document.querySelectorAll("button[data-opens]")) {
  const all = [...document.querySelectorAll(button.dataset.opens)];
  const closed = button.textContent;
  button.addEventListener("click", () => {
    const open = !all.every(one => one.open);
    all.forEach(one => { one.open = open; });
    button.textContent = open ? button.dataset.opened : closed;
  });
  button.parentElement.hidden = false;
}
