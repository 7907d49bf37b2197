"""Files that arrive whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of whatever was killed on its way, a file of such a name is left; nothing of that name is ever an object.
PARTIAL = ".oatflow-partial-"


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield the path of a file to be written in the same folder (which is made); it is removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(PARTIAL + secrets.token_hex(8))
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_on_success(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` on success."""
    with temporary_beside(path) as temporary:
        yield temporary
        temporary.replace(path)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that others find whole, old or new, at every moment; a pipe or a device gets the bytes as they are.

    Raises `OSError`.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with replace_on_success(path.resolve()) as temporary:
        temporary.write_bytes(data)
