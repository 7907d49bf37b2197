"""What images/build.sh fetches into the wheelhouse, where an index has torch's build for CPUs and where none has."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCH = re.search(r"^ARG TORCH=(.+)$", (ROOT / "images/Dockerfile").read_text(), re.MULTILINE)[1]

# pip, as far as the script sees it: it writes down what it is asked for, and finds +cpu only where $HAS says so.
PYTHON = f"""#!/usr/bin/env bash
if [ "$1" != -m ]; then exec {sys.executable} "$@"; fi
echo "$@" >>"$ASKED"
case "$*" in
  *+cpu*) case "$HAS:$*" in
    index:* | extra:*--extra-index-url*) ;;
    *) echo "ERROR: No matching distribution found" >&2; exit 1 ;;
  esac ;;
esac
"""
DOCKER = """#!/usr/bin/env bash
[ "$2" != --help ] || echo "--secret"
"""


@pytest.fixture
def fetch(tmp_path):
    """Run the script with an index like this; returns pip's arguments, call by call, and what was said."""
    shutil.copytree(ROOT / "images", tmp_path / "images", ignore=shutil.ignore_patterns("wheelhouse"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, text in {"python": PYTHON, "docker": DOCKER}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def fetch(has):
        environment = os.environ | {
            "PYTHON": str(tmp_path / "python"), "DOCKER": str(tmp_path / "docker"), "HAS": has,
            "ASKED": str(tmp_path / "asked"), "IMAGES": "control",
        }  # fmt: skip
        done = subprocess.run([tmp_path / "images/build.sh"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "asked").read_text().splitlines(), done.stdout

    return fetch


@pytest.mark.parametrize(("has", "calls"), [("index", 1), ("extra", 2), ("none", 3)])
def test_torch_for_cpus_is_looked_for_and_the_general_build_taken_where_there_is_none(fetch, has, calls):
    asked, said = fetch(has)
    torch = [line for line in asked if "--no-deps" in line and "torch==" in line]
    assert len(torch) == calls
    assert ("+cpu" in torch[-1]) == (has != "none")
    assert (f"no index has torch {TORCH}+cpu" in said) == (has == "none")


@pytest.mark.parametrize("has", ["index", "none"])
def test_what_comes_after_takes_the_torch_that_was_found(fetch, has):
    asked, _ = fetch(has)
    assert f" torch=={TORCH} " in asked[-1] and "+cpu" not in asked[-1]
    recipe = (ROOT / "images/Dockerfile").read_text()
    assert '"torch==$TORCH" transformers' in recipe and "$TORCH+cpu" not in recipe
