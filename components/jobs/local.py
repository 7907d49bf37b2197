"""Training jobs as processes on this machine, under torchrun."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import IO

from ..errors import TrainingFailed
from .job import TrainingJob

LAST_LINES = 100
_PR_SET_PDEATHSIG = 1


class LocalJobs:
    """Runs a job as one torchrun on this machine; its output is passed on line by line."""

    def run(self, job: TrainingJob) -> None:
        """Run a job to its end. If this process dies, the job's processes do too."""
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(job.workers),
            "--module", job.module, *job.arguments,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=_environment(job.workers), preexec_fn=_die_with_parent,
        )  # fmt: skip
        assert process.stdout is not None
        last: deque[str] = deque(maxlen=LAST_LINES)
        reader = threading.Thread(target=_pass_on, args=(process.stdout, last), daemon=True)
        reader.start()
        try:
            process.wait(job.timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TrainingFailed(_letter(job, f"not done after {job.timeout_seconds:.0f} s", last)) from None
        finally:
            _end(process)
            reader.join()
        if process.returncode:
            raise TrainingFailed(_letter(job, _reason(process.returncode, last), last))


def _environment(workers: int) -> dict[str, str]:
    """Share the cores among the workers, unless the user has; torchrun alone would give one thread to each."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    return {"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONUNBUFFERED": "1"}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _pass_on(stream: IO[str], last: deque[str]) -> None:
    for line in stream:
        print(line, end="", flush=True)
        last.append(line)


def _end(process: subprocess.Popen[str]) -> None:
    """End torchrun, which ends its workers; it gets a while to do so."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _reason(returncode: int, last: deque[str]) -> str:
    killed = any("SIGKILL" in line for line in last) or returncode == -signal.SIGKILL
    hint = "; a worker was killed, most likely for want of memory" if killed else ""
    return f"exit status {returncode}{hint}"


def _letter(job: TrainingJob, reason: str, last: deque[str]) -> str:
    return f"{job.name} failed: {reason}. Last lines:\n{''.join(last)}"
