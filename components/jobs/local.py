"""Training jobs as processes on this machine, under torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from functools import partial
from importlib.util import find_spec
from typing import IO

from ..errors import TrainingFailed
from .failure_messages import LAST_LINES, explain_exit, format_failure
from .job import TrainingJob
from .orphans import die_with_parent

PATIENCE_SECONDS = 40.0


class LocalJobs:
    """Runs a job as one torchrun on this machine; its output is passed on line by line."""

    def run(self, job: TrainingJob) -> None:
        """Run a job to its end. If this process dies, the job's processes do too."""
        if find_spec("torch") is None:
            raise TrainingFailed(
                f"{job.name}: train_backend='local' trains in this very container, which has no torch; compile the "
                "pipeline with --train-backend local, which gives the step the trainer's image, or choose pytorchjob"
            )
        begun, last = time.monotonic(), deque[str](maxlen=LAST_LINES)
        process = _start_torchrun(job)
        assert process.stdout is not None
        reader = threading.Thread(target=_pass_on, args=(process.stdout, last), daemon=True)
        reader.start()
        try:
            process.wait(job.timeout_seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also when this process is interrupted while it waits.
            _end_torchrun(process)
            reader.join()
        seconds = time.monotonic() - begun
        if process.returncode:
            late = f"not done after {job.timeout_seconds:.0f} s" if seconds >= job.timeout_seconds else None
            raise TrainingFailed(
                format_failure(job, seconds, late or explain_exit(process.returncode, "".join(last)), last)
            )

    def reap(self, experiment: str, token: int) -> list[str]:
        """Return nothing: no job outlives the process that runs it."""
        return []


def _start_torchrun(job: TrainingJob) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen(
        [*launcher, "--nproc-per-node", str(job.workers), "--module", job.module, *job.arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_training_environment(job.workers),
        start_new_session=True,
        preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),
    )


def _end_torchrun(process: subprocess.Popen[str]) -> None:
    """End torchrun, which ends its workers; it gets a while to do so."""
    process.terminate()
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _training_environment(workers: int) -> dict[str, str]:
    """Return the environment of the workers; what the user has set of OpenMP stays.

    The workers share the cores, where torchrun alone would give each of them one thread. Threads that wait sleep:
    spinning, a training beside any other busy program crawls (seen on 2 cores: 28 tokens/s instead of 149).
    """
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    defaults = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return {**defaults, **os.environ, "PYTHONUNBUFFERED": "1"}


def _pass_on(stream: IO[str], last: deque[str]) -> None:
    for line in stream:
        print(line, end="", flush=True)
        last.append(line)
