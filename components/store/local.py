"""A directory as a store: for tests, and for experiments that never leave one machine.

An object is a file; its etag is the SHA-256 of its content. Writes are whole or absent, and on the disk when they
return. One lock file serialises what must compare before it writes, between threads and between processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from ..errors import ObjectChanged, ObjectExists, ObjectNotFound, RefusedInput
from .files import PARTIAL, replace_on_success, temporary_beside
from .keys import checked_key, checked_prefix
from .store import Blob, Entry

_LOCK = ".oatflow-lock"


class LocalStore:
    """The objects below one folder. A key can be an object or lead to others, not both."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.uri = folder.as_uri()

    @classmethod
    def open(cls, uri: str) -> LocalStore:
        """Open ``file:///folder``; the folder appears with its first object."""
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise RefusedInput(f"ledger={uri!r}: not a local folder; write file:///absolute/path, with three slashes")
        return cls(Path(unquote(parts.path)))

    def patient(self, seconds: float, before_retry: Callable[[], object] | None = None) -> LocalStore:
        """Return this store: a folder is there, or it is not."""
        return self

    def get(self, key: str) -> Blob:
        """Read one object. Raises `ObjectNotFound`."""
        with self._found(key) as file:
            data, written = file.read(), os.fstat(file.fileno()).st_mtime
        return Blob(data, _make_etag(data), max(self._read_clock() - written, 0.0))

    def put(self, key: str, data: bytes) -> str:
        """Write an object whatever was there; returns its etag."""
        with _write_file(self._path(key), io.BytesIO(data)) as temporary, self._locked():
            _take_place(temporary, self._path(key))
        return _make_etag(data)

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create an object; returns its etag. Raises `ObjectExists`; of concurrent creators exactly one wins."""
        path = self._path(key)
        with _write_file(path, io.BytesIO(data)) as temporary:
            try:
                # Unlike a rename, a link never replaces what is there.
                path.hardlink_to(temporary)
            except FileExistsError:
                raise ObjectExists(f"{self.uri}: {key} exists already") from None
        _sync_folder(path.parent)
        return _make_etag(data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Compare-and-swap: write only if the object still has `etag`. Raises `ObjectChanged`, `ObjectNotFound`."""
        with _write_file(self._path(key), io.BytesIO(data)) as temporary, self._locked():
            if self.get(key).etag != etag:
                raise ObjectChanged(f"{self.uri}: {key} has changed since it was read")
            _take_place(temporary, self._path(key))
        return _make_etag(data)

    def list(self, prefix: str) -> Iterator[Entry]:
        """List the objects whose key starts with `prefix`, in the order of their keys."""
        start = self.folder / checked_prefix(prefix).rpartition("/")[0]
        paths = {path.relative_to(self.folder).as_posix(): path for path in start.rglob("*")}
        for key in sorted(key for key in paths if key.startswith(prefix)):
            if (entry := _make_entry(key, paths[key])) is not None:
                yield entry

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        with self._locked():
            self._path(key).unlink(missing_ok=True)

    def upload(self, key: str, path: Path) -> None:
        """Write a file of any size."""
        with path.open("rb") as source, _write_file(self._path(key), source) as temporary, self._locked():
            _take_place(temporary, self._path(key))

    def download(self, key: str, path: Path) -> None:
        """Fetch an object of any size into a file. Raises `ObjectNotFound`."""
        with self._found(key) as source, replace_on_success(path) as temporary, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def _read_clock(self) -> float:
        """Return the time by the clock that dates the files: on a network drive, the clock of its server."""
        lock = self.folder / _LOCK
        try:
            lock.touch()
            return lock.stat().st_mtime
        except OSError:
            # It may only be read.
            return time.time()

    def _path(self, key: str) -> Path:
        path = self.folder / checked_key(key)
        if _is_ours(path):
            raise RefusedInput(f"key={key!r}: this store keeps such names for itself; choose another")
        return path

    @contextmanager
    def _found(self, key: str) -> Iterator[BinaryIO]:
        try:
            file = self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ObjectNotFound(f"{self.uri}: there is no object {key}") from None
        with file:
            yield file

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@contextmanager
def _write_file(path: Path, source: BinaryIO) -> Iterator[Path]:
    with temporary_beside(path) as temporary:
        with temporary.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        yield temporary


def _take_place(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as fsync does for the content of a file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_entry(key: str, path: Path) -> Entry | None:
    """Describe an object; None for a folder, for this store's own files, and for what was deleted meanwhile."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return None if path.is_dir() or _is_ours(path) else Entry(key, facts.st_size, facts.st_mtime)


def _is_ours(path: Path) -> bool:
    return path.name == _LOCK or path.name.startswith(PARTIAL)


def _make_etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
