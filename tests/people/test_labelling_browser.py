"""The labelling page in a real headless browser: keys pressed, the page reloaded, answers arrived in the ledger."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import websocket
from oatflow.components.errors import WaitingForLabels
from oatflow.components.oracles.settings import HumanSettings
from oatflow.components.people.annotations import read_answers
from oatflow.components.people.missing_answers import group_by_duel
from oatflow.components.people.questions import Batch, make_questions, to_page
from oatflow.components.records.plan import Plan, PolicyPointer
from oatflow.components.records.records import Duel, duel_id
from oatflow.components.rounds.annotation_files import collect_answers, read_annotations, read_batch
from oatflow.pipelines.people.label_server import AnswerCollector, open_server

pytestmark = pytest.mark.slow

HOSTILE = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = 'broken'\"> & <b>bold</b>"
PICTURES = os.environ.get("OATFLOW_TEST_PICTURES")
"""A folder to keep the screenshots in, for people to look at."""
LETTERS = {"t": "KeyT", "s": "KeyS", "u": "KeyU"}


def duel(number, first="", second=""):
    prompt = f"Write the beginning of a review of film {number}, in a friendly tone."
    first = first or f"Film {number} begins slowly, but its actors carry it. By the end I cared about each of them."
    second = second or f"I have seen film {number}. It is a film. There were people in it, and the sound was loud."
    return Duel(duel_id(prompt, first, second), f"prompt-{number}", prompt, first, second, 0, 1, False)


DUELS = [duel(0, HOSTILE), *(duel(number) for number in range(1, 20))]


class Browser:
    """One page of a headless Chromium, driven over the DevTools protocol."""

    def __init__(self, address):
        self._socket = websocket.create_connection(address, timeout=120, suppress_origin=True)
        self._numbers = itertools.count(1)
        self.console = []
        self.requests = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.recv())
            self._note(told)
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]

    def _note(self, told):
        if told.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.console.append(told["params"])
        if told.get("method") == "Network.requestWillBeSent":
            self.requests.append(told["params"]["request"]["url"])

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def reload(self):
        self.call("Page.reload")
        self.until("document.readyState === 'complete'")

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def until(self, expression):
        for _ in range(200):
            if self.value(expression):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}; {self.value('document.body.innerText')}; {self.console}")

    def press(self, key, repeat=False):
        code = LETTERS.get(key, key)
        numbers = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Backspace": 8}
        event = {"key": key, "code": code, "windowsVirtualKeyCode": numbers.get(key, ord(key[0].upper()))}
        text = {"text": "\r" if key == "Enter" else key} if key == "Enter" or len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", autoRepeat=repeat, **event, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def look(self, width, height=900, dark=False, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, name):
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        if PICTURES:
            (Path(PICTURES) / f"{name}.png").write_bytes(data)
        return data

    def count(self):
        return self.value("document.getElementById('count').textContent")

    def shows(self, view):
        return not self.value(f"document.getElementById('{view}').hidden")


@pytest.fixture
def browser(tmp_path):
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "this test labels in a browser; install one: apt-get install chromium"
    profile = tmp_path / "profile"
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
               "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
    with open(tmp_path / "chromium.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Browser(_page_address(profile / "DevToolsActivePort"))
    finally:
        process.terminate()
        process.wait(120)


def _page_address(port_file):
    """Wait until Chromium says where it listens, and return the address of its first page."""
    for _ in range(600):
        if port_file.exists() and (lines := port_file.read_text().split()):
            targets = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=120).read())
            pages = [target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page"]
            if pages:
                return pages[0]
        time.sleep(0.05)
    raise AssertionError("Chromium did not start")


@pytest.fixture
def asked(begin_ledger):
    """An experiment whose round waits for one person's answers to twenty duels."""
    settings = {"prompts": {}, "labeling": {"preference_oracle": "human"}, "ledger": {"seed": 7},
                "human": {"human_guideline": "Which review would you rather read?"}}  # fmt: skip
    ledger, _ = begin_ledger("films", settings, [Plan(0, 1, (), *[PolicyPointer(-1, "start")] * 2, 0, 1000)])
    with pytest.raises(WaitingForLabels):
        collect(ledger)
    return ledger


def collect(ledger):
    with ledger.open_step(0, "labeling", "a") as step:
        return collect_answers(step, DUELS, HumanSettings(), print)


@pytest.fixture
def served(asked):
    """The page of the waiting round at an address of its own; returns ledger, address and collector."""
    collector = AnswerCollector(asked, read_batch(asked, 0), HumanSettings())
    with open_server(collector, 0, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield asked, f"http://127.0.0.1:{server.server_port}/{collector.secret}", collector
        server.shutdown()
        thread.join()


@pytest.fixture
def page_file(tmp_path):
    def write(duels, name="page.html"):
        path = tmp_path / name
        guideline = "Which review would you rather read?\n\nMind the tone first, then the facts.\nLength is no merit."
        batch = Batch("films", 0, guideline, make_questions(duels, 7, 0))
        path.write_bytes(to_page(batch))
        return path, batch

    return write


def start(browser, url, name="Ann"):
    browser.open(url)
    browser.until("document.activeElement.id === 'name'")
    browser.type(name)
    browser.press("Enter")
    browser.until("!document.getElementById('duel').hidden")


def test_twenty_duels_are_labelled_with_the_keyboard_and_the_answers_arrive(browser, served):
    ledger, address, collector = served
    browser.look(1280)
    start(browser, f"{address}/", "Ann Example")
    assert browser.count() == "0 of 20"
    assert browser.value("document.title") != "broken"
    assert HOSTILE in browser.value("document.body.textContent")
    presses = ["ArrowLeft", "ArrowRight", "t", "s", "ArrowDown", "ArrowLeft", "ArrowRight", "ArrowLeft"]
    for key in presses:
        browser.press(key)
    assert browser.count() == "8 of 20"
    browser.picture("duel")
    browser.reload()
    browser.until("!document.getElementById('duel').hidden")
    assert browser.count() == "8 of 20"
    browser.press("u")
    browser.press("Backspace")
    assert browser.count() == "6 of 20"
    for key in ["ArrowRight", "ArrowRight", *["ArrowLeft", "ArrowRight"] * 6]:
        browser.press(key)
    browser.until("!document.getElementById('end').hidden")
    assert browser.count() == "20 of 20"
    assert read_annotations(ledger, 0) == []
    browser.picture("end")
    browser.until("document.activeElement.id === 'send'")
    browser.press("Enter")
    browser.until("document.getElementById('end-text').textContent.includes('have arrived')")
    assert collector.finished.wait(120)
    browser.picture("sent")

    said = ["left", "right", "tie", "skip", "tie", "left", "right", "right", *["left", "right"] * 6]
    left = read_batch(ledger, 0).shown.left
    other = {"first": "second", "second": "first"}
    wanted = {
        row.duel_id: {"left": left[row.duel_id], "right": other[left[row.duel_id]]}.get(word, word)
        for row, word in zip(DUELS, said, strict=True)
    }
    rows = read_annotations(ledger, 0)
    assert {row.duel_id: row.verdict for row in rows} == wanted
    assert {(row.annotator, row.left == left[row.duel_id]) for row in rows} == {("ann example", True)}
    assert collect(ledger) == group_by_duel(rows, (row.duel_id for row in DUELS))
    assert browser.console == []
    assert all(url.startswith(address) for url in browser.requests if url.startswith("http"))


def test_what_was_sent_is_known_to_another_browser_and_cannot_be_undone(browser, served):
    _, address, _ = served
    start(browser, f"{address}/")
    for key in ["ArrowLeft", "ArrowRight", "t"]:
        browser.press(key)
    browser.value("document.getElementById('stop').click()")
    browser.until("!document.getElementById('end').hidden")
    browser.press("Enter")
    browser.until("document.getElementById('end-text').textContent.includes('have arrived')")
    browser.value("localStorage.clear()")
    start(browser, f"{address}/", " ANN ")
    assert browser.count() == "3 of 20"
    browser.press("u")
    assert browser.count() == "3 of 20"
    assert browser.console == []


def test_from_a_file_the_answers_are_downloaded_and_read_back(browser, page_file, tmp_path):
    path, batch = page_file(DUELS[:3])
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
    start(browser, path.as_uri(), "Jörg Öst")
    for key in ["ArrowLeft", "ArrowRight", "s"]:
        browser.press(key)
    browser.reload()
    browser.until("!document.getElementById('end').hidden")
    assert not browser.value("document.getElementById('send').offsetHeight")
    browser.value("document.getElementById('download').click()")
    answers = tmp_path / "downloads" / "answers-jörg-öst.jsonl"
    for _ in range(200):
        if answers.exists() and answers.stat().st_size:
            break
        time.sleep(0.05)
    rows = read_answers(answers.read_bytes(), answers.name, batch.shown)
    left = [question.left for question in batch.questions]
    assert [row.annotator for row in rows] == ["jörg öst"] * 3
    assert [row.verdict for row in rows] == [left[0], "second" if left[1] == "first" else "first", "skip"]
    assert browser.console == []


def test_a_key_held_down_answers_one_duel_only(browser, page_file):
    path, _ = page_file(DUELS)
    start(browser, path.as_uri())
    browser.press("ArrowLeft")
    for _ in range(5):
        browser.press("ArrowLeft", repeat=True)
    assert browser.count() == "1 of 20"


def test_where_there_is_more_to_read_the_arrow_down_scrolls_and_ties_nothing(browser, page_file):
    path, _ = page_file([duel(0, "A long answer. " * 900, "A short one."), duel(1)])
    browser.look(1280, 800)
    start(browser, path.as_uri())
    for _ in range(3):
        browser.press("ArrowDown")
    browser.until("scrollY > 0")
    browser.picture("long")
    assert browser.count() == "0 of 2"
    assert browser.value("document.getElementById('tie-key').textContent") == "T"
    browser.press("t")
    browser.until("scrollY === 0")
    assert browser.value("document.getElementById('tie-key').textContent") == "↓"
    browser.press("ArrowDown")
    assert browser.count() == "2 of 2"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_everything_fits_and_can_be_touched_and_read(browser, page_file, width, dark):
    path, _ = page_file([duel(0, "word " * 300, "unbroken" * 60), duel(1), duel(2, HOSTILE, "  \n")])
    browser.look(width, 844, dark, phone=width < 700)
    browser.open(path.as_uri())
    name = f"{width}-{'dark' if dark else 'light'}"
    browser.until("document.activeElement.id === 'name'")
    browser.picture(f"start-{name}")
    browser.type("Ann")
    browser.press("Enter")
    browser.until("!document.getElementById('duel').hidden")
    browser.picture(f"long-{name}")
    for view in ("long", "short"):
        assert browser.value("document.documentElement.scrollWidth - innerWidth") <= 0, view
        # What is at the very end of the text can be read above the buttons.
        browser.value("scrollTo(0, 1e6)")
        below = "document.getElementById('choices').getBoundingClientRect().top - "
        assert browser.value(f"{below}document.querySelector('.pair').getBoundingClientRect().bottom") >= 0
        browser.value("document.querySelector('[data-verdict=left]').click()")
    browser.picture(f"duel-{name}")
    low = "[...document.querySelectorAll('.verdicts button')].map(one => one.getBoundingClientRect().height)"
    assert min(browser.value(low)) >= 44
    assert browser.value(CONTRAST) >= 4.5
    browser.value("document.querySelector('[data-verdict=right]').click()")
    browser.until("!document.getElementById('end').hidden")
    browser.picture(f"end-{name}")
    assert browser.value(CONTRAST) >= 4.5
    assert browser.console == []


# The least contrast (WCAG 2.2) of any text that shows, against the nearest painted background.
CONTRAST = """(() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const paper = one => {
    for (; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return light(colour);
    }
    return 1;
  };
  const ratios = [...document.querySelectorAll("body *")]
    .filter(one => one.offsetParent && one.tagName !== "SCRIPT" && !one.disabled)
    .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .map(one => {
      const [a, b] = [light(numbers(getComputedStyle(one).color)), paper(one)].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    });
  return Math.min(...ratios);
})()"""


def ask(address, path="/answers", body=None, **headers):
    """Send one request; returns status and reply."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, body, names), timeout=30) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


def test_the_page_is_served_to_this_machine_by_its_name_alone(served):
    _, address, collector = served
    assert ask(address, "/") == (200, collector.page)
    assert ask(address, "/", Host="evil.test")[0] == 403
    assert ask(address, "/etc/passwd")[0] == 404
    assert ask(address, "/answers?annotator=ann") == (200, b'{"answers": {}}')
    assert ask(address, "/answers")[0] == 422


@pytest.mark.parametrize("secret", ["", "/", "/wrong", "/wrong/", "//", "/%2e"])
def test_without_the_secret_of_its_address_nothing_is_shown_and_no_answer_is_taken(served, secret):
    ledger, address, collector = served
    elsewhere = address.rpartition("/")[0] + secret
    row = {"duel_id": DUELS[0].duel_id, "annotator": "ann", "verdict": "left"}
    body = json.dumps({"answers": [row]}).encode()
    for path in ("", "/", "/answers?annotator=ann"):
        status, reply = ask(elsewhere, path)
        assert status == 404 and collector.secret.encode() not in reply
    good = {"Origin": address.rpartition("/")[0], "Content_Type": "application/json"}
    assert ask(elsewhere, body=body, **good)[0] == 404
    assert read_annotations(ledger, 0) == []


def test_only_the_page_itself_may_hand_in_answers(served):
    ledger, address, _ = served
    row = {"duel_id": DUELS[0].duel_id, "annotator": "ann", "verdict": "left"}
    body = json.dumps({"answers": [row]}).encode()
    good = {"Origin": address.rpartition("/")[0], "Content_Type": "application/json"}
    assert ask(address, body=body, Content_Type="application/json")[0] == 403
    assert ask(address, body=body, **good | {"Origin": "http://evil.test"})[0] == 403
    assert ask(address, body=body, **good | {"Content_Type": "text/plain"})[0] == 415
    assert ask(address, body=b"{", **good)[0] == 400
    assert ask(address, body=b"[]", **good)[0] == 422
    assert ask(address, body=b'{"answers": [3]}', **good)[0] == 422
    assert ask(address, body=body, **good | {"Content_Length": str(10**12)})[0] == 413
    status, reply = ask(address, body=json.dumps({"answers": [row | {"duel_id": "other"}]}).encode(), **good)
    assert (status, b"not one of the 20 duels" in reply) == (422, True)
    assert read_annotations(ledger, 0) == []
    assert ask(address, body=body, **good) == (200, b'{"new": 1}')
    assert ask(address, body=body, **good) == (200, b'{"new": 0}')
    contradiction = json.dumps({"answers": [row | {"verdict": "right"}]}).encode()
    status, reply = ask(address, body=contradiction, **good)
    assert (status, b"what was said once stands" in reply) == (422, True)
    assert len(read_annotations(ledger, 0)) == 1
