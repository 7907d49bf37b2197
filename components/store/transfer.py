"""Folders to and from a store: in parallel, with a digest for every file, verified when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import DamagedObject, RefusedInput
from .files import PARTIAL, replace_on_success
from .keys import checked_key
from .store import Store

FILES_AT_ONCE = 4

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Placed:
    """An object with what was recorded when it was written: a name for people, its key, its size and digest."""

    name: str
    key: str
    size: int
    sha256: str


def upload_folder(store: Store, folder: Path, prefix: str) -> list[Placed]:
    """Write every file below `folder` under `prefix`, named by its path in the folder; returns them by name."""
    if not folder.is_dir():
        raise RefusedInput(f"folder={str(folder)!r}: there is no such folder to upload")
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(PARTIAL))
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    return _list_files(lambda name: _upload_file(store, folder / name, name, prefix + name), names)


def download_folder(store: Store, objects: Sequence[Placed], folder: Path) -> None:
    """Fetch `objects` into `folder` under their names; a file is there only if it has the digest recorded for it.

    Raises `DamagedObject`, naming the object.
    """
    for placed in objects:
        checked_key(placed.name)
    folder.mkdir(parents=True, exist_ok=True)
    _list_files(lambda placed: _download_file(store, placed, folder / placed.name), objects)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _upload_file(store: Store, path: Path, name: str, key: str) -> Placed:
    placed = Placed(name, key, path.stat().st_size, sha256_file(path))
    store.upload(key, path)
    return placed


def _download_file(store: Store, placed: Placed, path: Path) -> None:
    with replace_on_success(path) as temporary:
        store.download(placed.key, temporary)
        if sha256_file(temporary) != placed.sha256:
            # The answer may have been damaged on its way.
            store.download(placed.key, temporary)
        found = sha256_file(temporary)
        if found != placed.sha256:
            raise DamagedObject(
                f"{placed.key}: its SHA-256 is {found}, but {placed.sha256} was written; restore it from a backup"
            )


def _list_files(act: Callable[[Given], Made], things: Iterable[Given]) -> list[Made]:
    """Act on all things in parallel, results in their order; the first failure calls off what has not begun."""
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="transfer") as pool:
        try:
            return list(pool.map(act, things))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
