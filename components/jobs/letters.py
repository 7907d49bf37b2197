"""Letters about training jobs that failed: the program's own, or how its workers ended."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable

from .job import TrainingJob

LAST_LINES = 100
# The program's own letter, and what torchrun says of the worker that failed first.
_LETTER = re.compile(r"oatflow\.components\.errors\.(\w+: .+)")
_EXIT = re.compile(r"Root Cause.*?exitcode\s*: (-?\d+)", re.DOTALL)


def reason(returncode: int, output: str) -> str:
    """Say why a job failed, from the exit status of torchrun and the end of its output."""
    own = own_letter(output)
    if own is not None:
        return own
    worker = _EXIT.search(output)
    status = int(worker[1]) if worker else returncode
    if status == -signal.SIGKILL:
        return "killed by SIGKILL, most likely for want of memory: use smaller passes (train_batch_size_per_device)"
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def own_letter(output: str) -> str | None:
    """Return the last error that the program itself wrote, if it wrote any."""
    own = _LETTER.findall(output)
    return str(own[-1]) if own else None


def letter(job: TrainingJob, seconds: float, why: str, last: Iterable[str]) -> str:
    """Write what went wrong to whoever must act."""
    return f"{job.name} failed after {seconds:.0f} s: {why}. Its last lines:\n{''.join(last)}"


def span(seconds: float) -> str:
    """Say how long something took, as a person would."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
