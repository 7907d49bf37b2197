"""A folder for what a run fetches, which is cleared away once the run is over, even if it was killed."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

IN_USE = "in-use.lock"


@contextmanager
def make_scratch(parent: Path) -> Iterator[Path]:
    """Give a run a new folder below `parent`, and clear away those of runs that were killed.

    Each run holds a lock in its folder, which ends with its process. A process id would not do: a container and its
    host see different ones in the same folder.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / ".lock").open("wb") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        _clear_leftovers(parent)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
        in_use = (folder / IN_USE).open("wb")
        fcntl.flock(in_use, fcntl.LOCK_EX)
    with in_use:
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _clear_leftovers(parent: Path) -> None:
    for left in parent.iterdir():
        if left.is_dir() and not _is_in_use(left):
            shutil.rmtree(left)


def _is_in_use(folder: Path) -> bool:
    """Whether a run holds the folder; a folder of an earlier version is named by its process."""
    if folder.name.isdigit():
        return Path("/proc", folder.name).exists()
    lock: BinaryIO
    try:
        with (folder / IN_USE).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
