"""How a failed step ends: the last line of its log is one sentence with the cause and what to do.

The same sentence goes to Kubernetes' termination log. From there it becomes the message of the terminated container,
and Argo makes it the message of the step's node.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OatflowError, TrainingFailed
from .progress import hide_secrets

PREFIX = "oatflow: "
ABOVE = "the traceback above"
BUG = f"this is a bug in oatflow, please report it with {ABOVE}"
LOST_PEER = "another worker of this training ended, or cannot be reached"
# Names another file than Kubernetes' own, for tests.
TERMINATION_LOG = "OATFLOW_TERMINATION_LOG"
# Kubernetes cuts what is longer.
MOST_BYTES = 4096
# What makes a path of the user's unusable.
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
# What torch's transports say when a peer is gone; they have no exception types of their own for it.
_PEER = re.compile(r"connection (closed|reset|refused)|timed out.*(peer|store)|gloo|nccl|TCPStore", re.IGNORECASE)


@contextmanager
def explain_failure(memory: str, peers: bool = False) -> Iterator[None]:
    """End the process when the body fails: with one sentence that says why, and the error's own exit code.

    A failure that was not foreseen keeps its traceback, and its sentence says that it is a bug.

    Args:
        memory: What to change when the body runs out of memory.
        peers: Whether the body works together with other processes, and fails when one of them ends.
    """
    try:
        yield
    except Exception as error:
        sentence, details = describe_failure(error, memory, peers)
        with suppress(OSError):
            # Whoever read the output may be gone.
            sys.stdout.flush()
        said = hide_secrets(f"{details}\n{PREFIX}{sentence}".lstrip("\n"))
        print(_make_printable(said), file=sys.stderr, flush=True)
        _write_termination_log(_make_printable(hide_secrets(sentence)), overwrite=is_cause(sentence))
        raise SystemExit(getattr(error, "exit_code", 1)) from error


def describe_failure(error: Exception, memory: str, peers: bool = False) -> tuple[str, str]:
    """Return one sentence that says why a step failed, and the lines that should be read with it."""
    known = _known_cause(error, memory, peers)
    if known is not None:
        # Of a training that failed, the first line is the sentence and the others are the end of the job's log.
        sentence, _, details = known.partition("\n") if isinstance(error, TrainingFailed) else (known, "", "")
        return _one_line(sentence), details.rstrip()
    trace = "".join(traceback.format_exception(error)).rstrip()
    return f"{BUG}: {type(error).__name__}: {_one_line(str(error))}", trace


def is_cause(sentence: str) -> bool:
    """Whether a sentence names the cause of a failure, and not just its consequence for this process."""
    return not sentence.startswith((BUG, LOST_PEER))


def _known_cause(error: Exception, memory: str, peers: bool) -> str | None:
    said = str(error) or type(error).__name__
    if isinstance(error, OatflowError):
        return said
    # By name, as torch is not there in every image.
    names = {base.__name__ for base in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names or "can't allocate memory" in said:
        return f"out of memory ({said.partition('.')[0]}): {memory}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        return (
            f"no space left on the disk{where}: free some, set TMPDIR to a folder on a larger disk, or raise "
            "jobs.train_pod_scratch if this is a training pod"
        )
    if isinstance(error, OSError) and error.filename and error.errno in _UNUSABLE:
        return f"{error.filename}: {error.strerror}; give this user a place that can be written, or name another one"
    if peers and ("DistError" in names or (isinstance(error, RuntimeError) and _PEER.search(said))):
        return f"{LOST_PEER} ({said.partition(chr(10))[0]}): look at the worker that failed first"
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _make_printable(text: str) -> str:
    """Return the text as UTF-8 can write it: names of files may hold bytes that it cannot."""
    return text.encode(errors="backslashreplace").decode()


def _write_termination_log(sentence: str, overwrite: bool) -> None:
    """Give the sentence to Kubernetes. Without `overwrite`, a sentence of another process of this container stays."""
    path = Path(os.environ.get(TERMINATION_LOG, "/dev/termination-log"))
    # Outside of a pod there is no such file, and none is made.
    with suppress(OSError):
        if path.is_file() and (overwrite or not path.stat().st_size):
            path.write_bytes(sentence.encode()[:MOST_BYTES].decode(errors="ignore").encode())
