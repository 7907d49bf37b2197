"""Why a training failed, in words: what its program said of itself, or how its workers ended."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable

from ..step_ending import BUG, PREFIX, is_cause
from .job import TrainingJob

LAST_LINES = 100
# The program's own sentence (the end of its traceback, in older images), and what torchrun says of the worker
# that failed first.
_SENTENCE = re.compile(rf"^(?:\[[^\]]*\]:\s*)?(?:{PREFIX}|oatflow\.components\.errors\.\w+: )(.+)$", re.MULTILINE)
_EXIT = re.compile(r"Root Cause.*?exitcode\s*: (-?\d+)", re.DOTALL)


def reason(returncode: int, output: str) -> str:
    """Return why a job failed, from the exit status of torchrun and the end of its output."""
    own = own_letter(output)
    if own is not None:
        return own
    worker = _EXIT.search(output)
    status = int(worker[1]) if worker else returncode
    if status == -signal.SIGKILL:
        return "killed by SIGKILL, most likely for want of memory: use smaller passes (train_batch_size_per_device)"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    # The first of them: the others fail because of it.
    bug = next((said for said in _SENTENCE.findall(output) if said.startswith(BUG)), "")
    return f"exit status {status}" + (f" ({bug})" if bug else "")


def own_letter(output: str) -> str | None:
    """Return the last cause of a failure that the program itself wrote, if it wrote any."""
    own = [said for said in _SENTENCE.findall(output) if is_cause(said)]
    return str(own[-1]) if own else None


def letter(job: TrainingJob, seconds: float, why: str, last: Iterable[str]) -> str:
    """Return the message of a failed job: one sentence, and the end of the log on the lines after it."""
    return f"{job.name} failed after {seconds:.0f} s: {why.rstrip('.')}.\nIts last lines:\n{''.join(last)}"


def span(seconds: float) -> str:
    """Say how long something took, as a person would."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
