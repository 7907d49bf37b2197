"""The report in a real browser, as KFP shows it (a sandboxed frame) and as a file, wide and narrow, light and dark."""

import html as markup
import json
import re
import shutil
import subprocess

import pytest
from matplotlib.image import imread

pytestmark = pytest.mark.slow

LONG = "An answer" + "n" * 3000 + " with words. " * 200

# What Chromium asks for on its own account, whatever the page.
BROWSERS_OWN = re.compile(r"https?://([\w-]+\.)*(google\.com|googleapis\.com|gvt1\.com)/")

# Clicks through the frame and writes down what it finds, for --dump-dom to bring back.
PROBE = """<!DOCTYPE html><body><iframe sandbox="allow-same-origin" style="border:0;width:{width}px;height:900px"
srcdoc="{page}"></iframe><script>
document.querySelector("iframe").onload = event => {{
  const page = event.target.contentDocument, root = page.documentElement;
  const closed = [...page.querySelectorAll("details")].filter(one => !one.open).length;
  page.querySelectorAll("summary").forEach(one => one.click());
  const boxes = [...page.querySelectorAll("figure svg")].map(one => one.getBoundingClientRect());
  const found = {{
    overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth, closed,
    opened: [...page.querySelectorAll("details")].filter(one => one.open).length,
    drawings: boxes.filter(box => box.width > 200 && box.height > 60).length,
    letters: Math.min(...[...page.querySelectorAll("svg text")].map(one => one.getBoundingClientRect().height)),
  }};
  const note = document.createElement("pre");
  note.id = "found"; note.textContent = JSON.stringify(found);
  document.body.append(note);
}};
</script>"""


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
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    return run


@pytest.fixture(scope="module")
def report(made_report, made_duel, tmp_path_factory):
    """A report with long and hostile answers, as a file."""
    from oatflow.components.reporting.page import render

    duels = (
        made_duel(),
        made_duel(first=LONG, second="<script>document.title = 'broken'</script><img src=//x.test/y>"),
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(made_report(duels=duels)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def offline_report(made_report, made_offline_row, tmp_path_factory):
    """A report of rounds that learned from a preference set, as a file."""
    from oatflow.components.reporting.page import render

    path = tmp_path_factory.mktemp("report") / "offline.html"
    rows = tuple(made_offline_row(round_, held_out_accuracy=0.6 + round_ / 20) for round_ in range(4))
    path.write_text(render(made_report(rows=rows, verdicts=(), oracle="preference set")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def exploring_report(made_report, made_duel, made_explored_row, tmp_path_factory):
    """A report of an ensemble that picked duels and labelled some, as a file."""
    from oatflow.components.reporting.page import render

    path = tmp_path_factory.mktemp("report") / "exploring.html"
    told = {"strategy": "EnnBAITS", "predicted": 0.53, "uncertainty": 0.018}
    duels = (made_duel(**told), made_duel(**told, synthetic=True, member=7, member_first_wins=0.9))
    rows = tuple(made_explored_row(round_, synthetic=5 * round_) for round_ in range(4))
    path.write_text(render(made_report(rows=rows, duels=duels)), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize(("kind", "drawings"), [("report", 4), ("offline_report", 3), ("exploring_report", 8)])
def test_in_a_sandboxed_frame_everything_fits_opens_and_is_drawn(browse, request, tmp_path, width, kind, drawings):
    probe = tmp_path / "probe.html"
    page = markup.escape(request.getfixturevalue(kind).read_text())
    probe.write_text(PROBE.format(width=width, page=page), encoding="utf-8")
    answer = browse("--dump-dom", "--window-size=1400,1000", "--virtual-time-budget=5000", probe.as_uri())
    found = json.loads(markup.unescape(re.search(r'<pre id="found">(.*?)</pre>', answer.stdout).group(1)))
    assert found["width"] == width
    assert found["overflow"] <= 0
    assert found["drawings"] == drawings
    assert found["opened"] == found["closed"] > drawings
    assert found["letters"] >= 8


def test_no_console_message_and_no_request(browse, report, tmp_path):
    def messages_and_requests(page):
        log = tmp_path / "net.json"
        errors = browse("--dump-dom", f"--log-net-log={log}", page.as_uri()).stderr
        asked = set(re.findall(r'"url":"([^"]+)"', log.read_text()))
        return "CONSOLE" in errors, {url for url in asked if not BROWSERS_OWN.match(url)}

    leaky = tmp_path / "leaky.html"
    leaky.write_text("<img src=http://x.test/y><script>throw 1</script>")
    assert messages_and_requests(leaky) == (True, {"http://x.test/y"})
    assert messages_and_requests(report) == (False, set())


@pytest.mark.parametrize(("scheme", "is_light"), [("1", True), ("0", False)])
@pytest.mark.parametrize("size", ["1280,1000", "390,844"])
def test_it_is_painted_in_the_colours_that_the_reader_prefers(browse, report, tmp_path, size, scheme, is_light):
    picture = tmp_path / "page.png"
    browse(f"--screenshot={picture}", f"--window-size={size}", f"--blink-settings=preferredColorScheme={scheme}",
           report.as_uri())  # fmt: skip
    pixels = imread(picture)[..., :3]
    width, height = map(int, size.split(","))
    assert pixels.shape == (height, width, 3)
    assert (pixels[2, 2].mean() > 0.9) == is_light
    assert (abs(pixels - pixels[2, 2]).max(axis=2) > 0.3).mean() > 0.01
