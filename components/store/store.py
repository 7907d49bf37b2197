"""The interface of an object store, and how to open one from a URI.

Keys are relative paths with forward slashes. `Store` is everything that the ledger needs; a new backend implements
these methods and adds its scheme to `open_store`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from ..errors import RefusedInput


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's bytes with the tag of the version that was read.

    `age`: seconds since that version was written, by the store's own clock; too small rather than too large. None if
    the store does not say.
    """

    data: bytes
    etag: str
    age: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing: size in bytes, age as seconds since the epoch."""

    key: str
    size: int
    modified: float


class Store(Protocol):
    """Bytes under keys, with two conditional writes.

    Every method may raise `StoreUnreachable` (after bounded retries) and `StoreRefused`.
    """

    uri: str

    def patient(self, seconds: float, before_retry: Callable[[], object] | None = None) -> Store:
        """Return this store as one that repeats each request for up to `seconds` while it is away.

        `before_retry` is called before each new try, and may end the waiting by raising.
        """
        ...

    def get(self, key: str) -> Blob:
        """Read one object. Raises `ObjectNotFound`."""
        ...

    def put(self, key: str, data: bytes) -> str:
        """Write an object whatever was there; returns its etag."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create an object; returns its etag. Raises `ObjectExists`; of concurrent creators exactly one wins."""
        ...

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Compare-and-swap: write only if the object still has `etag`. Raises `ObjectChanged`, `ObjectNotFound`."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """List the objects whose key starts with `prefix`, in the order of their keys."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        ...

    def upload(self, key: str, path: Path) -> None:
        """Write a file of any size (in parts where it is large)."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Fetch an object of any size into a file. Raises `ObjectNotFound`."""
        ...


def open_store(uri: str, named: str | None = None, patience_seconds: float = 0.0) -> Store:
    """Open ``file:///folder`` or ``s3://bucket/prefix?endpoint=http://host:port``.

    The keys of an S3 store come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, never from the URI; the endpoint
    falls back to AWS_ENDPOINT_URL, then to AWS itself. Raises `RefusedInput` for any other URI.

    `named`: what errors begin with, a setting and its value (by default the ledger's). `patience_seconds`: for how long
    a request is repeated while the server is away; 0 for the few tries that a person at a terminal waits for.
    """
    scheme = urlsplit(uri).scheme
    if scheme == "file":
        from .local import LocalStore

        return LocalStore.open(uri)
    if scheme == "s3":
        from .s3 import S3Store

        return S3Store.open(uri, named=named, patience_seconds=patience_seconds)
    raise RefusedInput(f"{named or f'ledger={uri!r}'}: a store's URI starts with s3:// or file://")
