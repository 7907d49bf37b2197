"""What the pages show as run is run: examples in Python, and whole pages as a new user types them."""

import importlib.util
import inspect
import json
import re
import subprocess
import sys

import pytest

from .pages import PAGES, ROOT, blocks_of, name_of

pytestmark = pytest.mark.slow

RUN = {page: [block for block in blocks_of(page) if block.kind in ("runs", "file")] for page in PAGES}
TYPED = [page for page, blocks in RUN.items() if any(b.kind == "runs" and b.language != "python" for b in blocks)]
EXAMPLES = [block for blocks in RUN.values() for block in blocks if (block.kind, block.language) == ("runs", "python")]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_example_in_python_holds_in_a_process_of_its_own(example, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", example.text], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_example_of_a_store_keeps_every_promise_of_a_store(tmp_path):
    (example,) = [block for block in EXAMPLES if "Store" in block.text and "put_if_absent" in block.text]
    names: dict = {}
    exec(compile(example.text, str(example), "exec"), names)
    promises = conformance()
    asked = 0
    for promise in promises:
        wanted = inspect.signature(promise).parameters
        for key in keys_of(promise):
            (folder := tmp_path / str(asked)).mkdir()
            given = {"store": names["MemoryStore"]("memory://tests"), "tmp_path": folder, "key": key}
            promise(**{name: given[name] for name in wanted})
            asked += 1
    assert asked > 15


def conformance():
    """The tests of what every store promises."""
    path = ROOT / "tests/store/test_conformance.py"
    spec = importlib.util.spec_from_file_location("store_promises", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [test for name, test in vars(module).items() if name.startswith("test_")]


def keys_of(promise):
    """The values that a test is parametrized with, or one None."""
    return next((mark.args[1] for mark in getattr(promise, "pytestmark", ()) if mark.name == "parametrize"), [None])


@pytest.mark.parametrize("page", TYPED, ids=name_of)
def test_a_page_can_be_typed_from_its_top_to_its_end(page, new_user):
    script = []
    for block in RUN[page]:
        if block.kind == "file":
            new_user.write(block.value, block.text)
        elif block.language != "python":
            script.append(block.text)
    done = new_user.type("\n".join(script))
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    if name_of(page) == "README.md":
        read_the_report(new_user.folder)


def read_the_report(folder):
    """The new user's own prompts, oracle and loss are what the report is about."""
    page = (folder / ".oatflow/reports/warm.html").read_text(encoding="utf-8")
    assert "simulated/rewards:warmth@" in page and "simpo" in page.lower()
    prompts = [json.loads(line)["question"] for line in (folder / "prompts/train.jsonl").read_text().splitlines()]
    assert any(prompt.replace("'", "&#39;") in page or prompt in page for prompt in prompts)
    assert re.search(r"\d+%", page) and 'src="http' not in page
    assert (folder / "warm.html").is_file()
