"""What tests of the pages need: the real command line, and a folder in which a page's commands run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from oatflow.pipelines.command_table import _with_underscores, make_parser

BIN = Path(sys.prefix) / "bin"


class NewUser:
    """A new user's folder, with the environment as `.venv` in it, and nothing else of this repository."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / ".venv").symlink_to(sys.prefix)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def type(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run lines as a shell does that stops at the first error; `align` does one round with the scripted preset."""
        script = script.replace("\\\n", " ")
        lines = [
            f"{line} --preset scripted --rounds 1" if "oatflow align " in line and "--preset" not in line else line
            for line in (line.partition("  #")[0] for line in script.splitlines())
        ]
        # As a user has it: no PYTHONPATH, and a home in the folder itself.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OATFLOW", "PYTHONPATH", "AWS_"))}
        environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
        return subprocess.run(
            [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip


@pytest.fixture
def new_user(tmp_path):
    return NewUser(tmp_path)


@pytest.fixture(scope="session")
def parse():
    """Parse a command with the real parser; what it does not know is returned, not raised."""
    parser = make_parser()

    def parse(words):
        try:
            return parser.parse_known_args([_with_underscores(word) for word in words])
        except SystemExit as stop:
            raise AssertionError(f"oatflow {' '.join(words)}: the command line refuses it") from stop

    return parse


@pytest.fixture(scope="session")
def flags():
    """All flags of all commands, dashes as underscores."""
    return {flag for parser in _parsers(make_parser()) for flag in parser._option_string_actions}


@pytest.fixture(scope="session")
def commands():
    """The names of all commands."""
    (actions,) = (action for action in make_parser()._actions if hasattr(action, "choices") and action.choices)
    return set(actions.choices)


def _parsers(parser):
    yield parser
    for action in parser._actions:
        if isinstance(getattr(action, "choices", None), dict):
            for inner in action.choices.values():
                yield from _parsers(inner)
