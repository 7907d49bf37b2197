"""The report in a real browser, as KFP shows it (a sandboxed frame) and as a file, wide and narrow, light and dark."""

import html as markup
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib.image import imread

pytestmark = pytest.mark.slow

LONG = "An answer" + "n" * 3000 + " with words. " * 200

# What Chromium asks for on its own account, whatever the page.
BROWSERS_OWN = re.compile(r"https?://([\w-]+\.)*(google\.com|googleapis\.com|gvt1\.com)/")

PICTURES = os.environ.get("OATFLOW_TEST_PICTURES")
"""A folder to keep the screenshots in, for people to look at."""

# Opens the page in a frame as KFP does, looks at it and writes down what it finds, for --dump-dom to bring back.
PROBE = """<!DOCTYPE html><body><iframe sandbox="{allowed}" style="border:0;width:{width}px;height:900px"
srcdoc="{page}"></iframe><script>
document.querySelector("iframe").onload = event => {{
  const page = event.target.contentDocument, view = event.target.contentWindow;
  const all = (selector, root = page) => [...root.querySelectorAll(selector)];
  const look = () => {{ {look} }};
  const note = document.createElement("pre");
  note.id = "found"; note.textContent = JSON.stringify(look());
  document.body.append(note);
}};
</script>"""

LAYOUT = """
  const root = page.documentElement, closed = all("details").filter(one => !one.open).length;
  all("summary").forEach(one => one.click());
  const boxes = all("figure svg").map(one => one.getBoundingClientRect());
  return {
    overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth, closed,
    opened: all("details").filter(one => one.open).length,
    drawings: boxes.filter(box => box.width > 200 && box.height > 60).length,
    letters: Math.min(...all("svg text").map(one => one.getBoundingClientRect().height)),
    tools: all(".tools > :is(label, button), .tools").filter(one => one.offsetParent).length,
  };
"""

USE = """
  const search = page.querySelector("[data-search=duels]");
  const shown = () => all("#duels article").filter(one => one.offsetParent).length;
  const count = () => search.querySelector("output").textContent;
  const say = (selector, value, kind) => {
    const field = search.querySelector(selector);
    field.value = value; field.dispatchEvent(new view.Event(kind)); return [shown(), count()];
  };
  const button = page.querySelector("[data-opens]"), open = () => all("details.numbers").filter(one => one.open).length;
  const toggled = [open()];
  button.click(); toggled.push(open(), button.textContent);
  button.click(); toggled.push(open(), button.textContent);
  return {
    all: [shown(), count()],
    word: say("input", "GIRAFFE", "input"), words: say("input", "giraffe nothing", "input"),
    none: say("input", "", "input"), outcome: say("select", "second chosen", "change"),
    both: say("input", "giraffe", "input"), toggled,
  };
"""

# Every text whose contrast to what lies behind it is below 4.5 to 1 (WCAG 2, AA).
CONTRAST = """
  const light = color => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = one => {
    for (; one; one = one.parentElement) {
      const color = view.getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
  };
  const own = one => [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  all("details").forEach(one => { one.open = true; });
  const bad = [], texts = all("body *").filter(one => own(one) && !one.matches("script, option"));
  for (const one of texts) {
    const style = view.getComputedStyle(one), front = one.closest("svg") ? style.fill : style.color;
    const pair = [light(front), light(behind(one))].sort((one, other) => other - one);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) bad.push([one.textContent.trim().slice(0, 40), contrast.toFixed(2)]);
  }
  return {texts: texts.length, paper: light(view.getComputedStyle(page.body).backgroundColor), bad};
"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Run headless Chromium; returns its standard output and error."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "this test opens the report in a browser; install one: apt-get install chromium"
    profile = tmp_path_factory.mktemp("profile")

    def run(*arguments):
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            *map(str, arguments),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)

    return run


@pytest.fixture(scope="module")
def report(made_report, made_duel, made_row, made_answers, tmp_path_factory):
    """A report with long and hostile answers, as a file."""
    from oatflow.components.reporting.page import render_report

    duels = (
        made_duel(prompt="Describe a giraffe."),
        made_duel(first=LONG, second="<script>document.title = 'broken'</script><img src=//x.test/y>"),
        *(made_duel(f"of {number}", first_wins=0.1) for number in range(4)),
        made_duel("last", first_wins=0.2, first="I saw a Giraffe."),
    )
    rows = tuple(made_row(round_, answers=made_answers(66 + round_, longer=round_)) for round_ in range(6))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(made_report(duels=duels, rows=rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Three kinds of experiment side by side, one with two seeds, and one that cannot be compared, as a file."""
    from oatflow.components.records.records import Verdict
    from oatflow.components.reporting.comparison_page import render_comparison
    from oatflow.components.reporting.entrants import Entrant, Measurement, compare_entrants
    from oatflow.components.reporting.words import QUERIES

    def entrant(name, gain, seed=0, judge="vader"):
        def verdict(place, round_):
            wins = (7 * place + seed) % 50 < 25 + gain * round_
            tokens = 20 + round_ + place % 7
            return Verdict(f"p{place}", "Q", "A", "B", 0.9 if wins else 0.1, tokens, 22, None, None)

        measured = tuple(
            Measurement(round_, 64 * (round_ + 1), {f"p{place}": verdict(place, round_) for place in range(100)})
            for round_ in range(6)
        )
        conditions = {"opponent": "the starting model", "held-out prompts": "5097", "judge": judge}
        meaning = {"policy.beta": gain, "policy.sync_params_every": 1}
        return Entrant(name, seed, meaning, conditions, QUERIES, 6, measured, "d" * 64)

    long = "a-strategy-with-a-long-name"
    named = [
        entrant("passive", 1),
        entrant(f"{long}-0", 2),
        entrant(f"{long}-1", 2, 1),
        entrant("third", 3),
        entrant("other", 1, judge="gpt"),
    ]
    path = tmp_path_factory.mktemp("report") / "comparison.html"
    path.write_text(render_comparison(compare_entrants(named)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def offline_report(made_report, made_offline_row, tmp_path_factory):
    """A report of rounds that learned from a preference set, as a file."""
    from oatflow.components.reporting.page import render_report

    path = tmp_path_factory.mktemp("report") / "offline.html"
    rows = tuple(made_offline_row(round_, held_out_accuracy=0.6 + round_ / 20) for round_ in range(4))
    path.write_text(render_report(made_report(rows=rows, verdicts=(), oracle="preference set")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def exploring_report(made_report, made_duel, made_explored_row, tmp_path_factory):
    """A report of an ensemble that picked duels and labelled some, as a file."""
    from oatflow.components.reporting.page import render_report

    path = tmp_path_factory.mktemp("report") / "exploring.html"
    told = {"strategy": "EnnBAITS", "predicted": 0.53, "uncertainty": 0.018}
    duels = (made_duel(**told), made_duel(**told, synthetic=True, member=7, member_first_wins=0.9))
    rows = tuple(made_explored_row(round_, synthetic=5 * round_) for round_ in range(4))
    path.write_text(render_report(made_report(rows=rows, duels=duels)), encoding="utf-8")
    return path


@pytest.fixture
def look(browse, request, tmp_path):
    """Return what a look finds at a page in a frame as wide as given, in light or dark, with scripts or without."""

    def look(kind, script, width=1280, allowed="allow-same-origin allow-scripts", light=True):
        probe = tmp_path / "probe.html"
        page = markup.escape(request.getfixturevalue(kind).read_text())
        probe.write_text(PROBE.format(width=width, page=page, look=script, allowed=allowed), encoding="utf-8")
        scheme = f"--blink-settings=preferredColorScheme={int(light)}"
        answer = browse("--dump-dom", scheme, "--window-size=1400,1000", "--virtual-time-budget=5000", probe.as_uri())
        return json.loads(markup.unescape(re.search(r'<pre id="found">(.*?)</pre>', answer.stdout).group(1)))

    return look


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize(
    ("kind", "drawings"), [("report", 5), ("offline_report", 3), ("exploring_report", 8), ("comparison", 2)]
)
def test_in_a_sandboxed_frame_everything_fits_opens_and_is_drawn_without_a_script(look, width, kind, drawings):
    found = look(kind, LAYOUT, width, allowed="allow-same-origin")
    assert found["width"] == width
    assert found["overflow"] <= 0
    assert found["drawings"] == drawings
    assert found["opened"] == found["closed"] > drawings
    assert found["letters"] >= 8
    assert found["tools"] == 0


@pytest.mark.parametrize("width", [1280, 320])
def test_with_a_script_the_tools_are_there_and_fit_too(look, width):
    found = look("report", LAYOUT, width)
    assert (found["overflow"], found["tools"]) == (0, 3 + 1 + 4)


def test_search_and_the_switch_of_all_numbers_work(look):
    assert look("report", USE) == {
        "all": [7, "7 of 7"], "word": [2, "2 of 7"], "words": [0, "0 of 7"], "none": [7, "7 of 7"],
        "outcome": [5, "5 of 7"], "both": [1, "1 of 7"],
        "toggled": [0, 5, "Close all numbers", 0, "Open all numbers"],
    }  # fmt: skip


@pytest.mark.parametrize("light", [True, False])
@pytest.mark.parametrize("kind", ["report", "exploring_report", "comparison"])
def test_every_text_can_be_read_in_light_and_dark(look, kind, light):
    found = look(kind, CONTRAST, light=light)
    assert found["texts"] > 100 and (found["paper"] > 0.5) == light
    assert found["bad"] == []


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_no_console_message_and_no_request(browse, request, tmp_path, kind):
    def messages_and_requests(page):
        log = tmp_path / "net.json"
        errors = browse("--dump-dom", f"--log-net-log={log}", page.as_uri()).stderr
        asked = set(re.findall(r'"url":"([^"]+)"', log.read_text()))
        return "CONSOLE" in errors, {url for url in asked if not BROWSERS_OWN.match(url)}

    leaky = tmp_path / "leaky.html"
    leaky.write_text("<img src=http://x.test/y><script>throw 1</script>")
    assert messages_and_requests(leaky) == (True, {"http://x.test/y"})
    assert messages_and_requests(request.getfixturevalue(kind)) == (False, set())


@pytest.mark.parametrize(("scheme", "is_light"), [("1", True), ("0", False)])
@pytest.mark.parametrize("size", ["1280,1000", "390,844"])
@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_it_is_painted_in_the_colours_that_the_reader_prefers(browse, request, tmp_path, kind, size, scheme, is_light):
    picture = (Path(PICTURES) if PICTURES else tmp_path) / f"{kind}-{size.partition(',')[0]}-{scheme}.png"
    browse(f"--screenshot={picture}", f"--window-size={size}", f"--blink-settings=preferredColorScheme={scheme}",
           request.getfixturevalue(kind).as_uri())  # fmt: skip
    pixels = imread(picture)[..., :3]
    width, height = map(int, size.split(","))
    assert pixels.shape == (height, width, 3)
    assert (pixels[2, 2].mean() > 0.9) == is_light
    assert (abs(pixels - pixels[2, 2]).max(axis=2) > 0.3).mean() > 0.01


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_it_prints_on_a_few_pages(browse, request, tmp_path, kind):
    paper = (Path(PICTURES) if PICTURES else tmp_path) / f"{kind}.pdf"
    browse(f"--print-to-pdf={paper}", "--no-pdf-header-footer", request.getfixturevalue(kind).as_uri())
    pages = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    assert 2 <= pages <= 8
