"""What a step is doing right now, for whoever watches. Never a number that was not measured.

A step tells its progress as one JSON line: into the file named by OATFLOW_PROGRESS where a watcher asked for it
(`oatflow align` does), and to standard output otherwise, where a pod's log keeps it.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

PROGRESS_FILE = "OATFLOW_PROGRESS"


def tell_failure(step: str, round_: int, error: BaseException) -> None:
    """Say why a step failed, for whoever started it to pass on."""
    message = str(error) or type(error).__name__
    tell(step, round_, "failed", error=message, exit_code=getattr(error, "exit_code", 1))


def tell(step: str, round_: int, event: str, **facts: Any) -> None:
    """Append one line; O_APPEND keeps lines of several processes whole."""
    line = json.dumps({"at": time.time(), "step": step, "round": round_, "event": event, **facts})
    path = os.environ.get(PROGRESS_FILE)
    if path is None:
        print(line, flush=True)
        return
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
