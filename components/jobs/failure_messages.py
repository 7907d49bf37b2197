"""Messages for a failed training: from what its program wrote, or from how its workers exited."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable

from ..step_ending import BUG, PREFIX, is_cause
from .job import TrainingJob

LAST_LINES = 100
# The sentence that the program wrote (in older images, the end of its traceback), and torchrun's line on the worker
# that failed first.
_SENTENCE = re.compile(rf"^(?:\[[^\]]*\]:\s*)?(?:{PREFIX}|oatflow\.components\.errors\.\w+: )(.+)$", re.MULTILINE)
_EXIT = re.compile(r"Root Cause.*?exitcode\s*: (-?\d+)", re.DOTALL)


def explain_exit(returncode: int, output: str) -> str:
    """Return why a job failed, given the exit status of torchrun and the end of its output."""
    own = find_own_cause(output)
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


def find_own_cause(output: str) -> str | None:
    """Return the last cause of failure that the program itself wrote, or None."""
    own = [said for said in _SENTENCE.findall(output) if is_cause(said)]
    return str(own[-1]) if own else None


def format_failure(job: TrainingJob, seconds: float, why: str, last: Iterable[str]) -> str:
    """Return the message of a failed job: one sentence, then the end of its log."""
    return f"{job.name} failed after {seconds:.0f} s: {why.rstrip('.')}.\nIts last lines:\n{''.join(last)}"
