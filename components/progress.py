"""What a step is doing right now, for whoever watches. Never a number that was not measured.

A step tells its progress as one JSON line: into the file named by OATFLOW_PROGRESS where a watcher asked for it
(`oatflow align` does), and to standard output otherwise, where a pod's log keeps it.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import OatflowError

PROGRESS_FILE = "OATFLOW_PROGRESS"
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD)(_|$)", re.IGNORECASE)
_SHORTEST_SECRET = 6


def tell_failure(step: str, round_: int, error: BaseException) -> None:
    """Report why a step failed, in one line: what started the step shows it."""
    said = str(error).strip()
    if not isinstance(error, OatflowError):
        # What a library says may be a bare name: KeyError's is.
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    # The lines after the first are the end of a job's log, which the step's own log ends with.
    message = hide_secrets(said).partition("\n")[0]
    report_event(step, round_, "failed", error=message, exit_code=getattr(error, "exit_code", 1))


def hide_secrets(text: str) -> str:
    """Return the text without the values of variables that hold secrets, should a library have quoted one."""
    # The longest first: one may be the beginning of another.
    for name, value in sorted(os.environ.items(), key=lambda item: -len(item[1])):
        # In a message that was put into one line it looks like the second.
        for secret in (value, " ".join(value.split())) if _SECRET.search(name) else ():
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, f"${name}")
    return text


@contextmanager
def report_step(step: str, round_: int, began: float) -> Iterator[dict[str, Any]]:
    """Tell the start and the end of a step, or its failure; what the body puts into the dict goes with the end."""
    report_event(step, round_, "start", at=began)
    facts: dict[str, Any] = {}
    with report_failure(step, round_):
        yield facts
    report_event(step, round_, "end", seconds=time.time() - began, **facts)


@contextmanager
def report_failure(step: str, round_: int) -> Iterator[None]:
    """Tell why the body failed, if it does."""
    try:
        yield
    except BaseException as error:
        tell_failure(step, round_, error)
        raise


def report_note(text: str) -> None:
    """Say one line about the whole run: in the log, and to the watcher where one asked for it."""
    print(text, flush=True)
    if PROGRESS_FILE in os.environ:
        report_event("run", 0, "note", text=text)


def report_event(step: str, round_: int, event: str, **facts: Any) -> None:
    """Append one line; O_APPEND keeps lines of several processes whole."""
    line = json.dumps({"at": time.time(), "step": step, "round": round_, "event": event, **facts})
    path = os.environ.get(PROGRESS_FILE)
    if path is None:
        print(line, flush=True)
        return
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def is_progress(line: str) -> bool:
    """Whether a line of a log is one that `tell` wrote."""
    if not line.startswith("{"):
        return False
    try:
        report_step = json.loads(line)
    except ValueError:
        return False
    return isinstance(report_step, dict) and {"at", "step", "round", "event"} <= report_step.keys()


def format_duration(seconds: float) -> str:
    """Return seconds in words: 42 s, 10 min, 1.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
