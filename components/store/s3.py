"""An S3 bucket as a store: SeaweedFS, MinIO, AWS. The only module that knows the SDK.

Every request is repeated by `patience`, signed anew each time. What this module adds is what a request alone cannot
know: a body that breaks off, and whether a conditional write that was tried twice was won by its own first try.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError, NameResolutionError, ProtocolError, ReadTimeoutError, SSLError

from ..errors import (
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    StoreError,
    StoreRefused,
    StoreStaysAway,
    StoreUnreachable,
)
from ..progress import format_duration
from .connections import open_connections
from .files import replace_on_success
from .keys import checked_key, checked_prefix
from .patience import (
    TRIES,
    Outage,
    OutOfPatience,
    Patience,
    Trouble,
    connection_trouble,
    is_untrusted,
    unresolved,
    was_in_doubt,
)
from .s3_address import S3Address
from .store import Blob, Entry

# Memory is at most four parts for every file in flight. Larger parts were not faster: an S3 server spends its time on
# MD5, whatever their size.
PART_BYTES = 8 << 20
PARTS_AT_ONCE = 3
MOST_PARTS = 10_000

_WRONG_REGION = {"PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed"}
# A conflicting write is under way; another try settles it, or shows who won.
_CONFLICT = 409
# A condition did not hold, or another write with the same condition was faster.
_BEATEN = (409, 412)
_TOO_MANY, _TOO_SLOW, _NOT_IMPLEMENTED = 429, 408, 501
# What S3 says with status 400 of a request that broke off on its way.
_BROKEN_OFF = {"RequestTimeout", "IncompleteBody"}
_NO_ETAG = "the answer has no ETag: it is not S3's"


class S3Store:
    """The objects below one prefix of a bucket. Safe to share between threads.

    `named`: what its errors begin with, the setting and its value; by default it is the ledger's.
    """

    def __init__(
        self,
        address: S3Address,
        patience: Patience | None = None,
        named: str | None = None,
        pool: PoolManager | None = None,
    ):
        self.uri = address.uri
        self._address, self._given_name, self._named = address, named, named or f"ledger={address.uri}"
        # A setting's address need not say which server it means.
        self._at = f" at {address.endpoint}" if named else ""
        self._patience = patience or Patience(Outage(address.endpoint))
        self._pool = pool or open_connections()
        self._client = _Client(self._patience, address, self._pool)

    @classmethod
    def open(
        cls,
        uri: str,
        environment: Mapping[str, str] = os.environ,
        named: str | None = None,
        patience_seconds: float = 0.0,
    ) -> S3Store:
        """Open ``s3://bucket/prefix?endpoint=http://host:port`` with the keys of the environment; asks nothing yet."""
        address = S3Address.parse(uri, environment, named)
        return cls(address, Patience(Outage(address.endpoint), patience_seconds), named)

    def patient(self, seconds: float, before_retry: Callable[[], object] | None = None) -> S3Store:
        """Return this store as one that repeats each request for up to `seconds`, calling `before_retry` first."""
        return S3Store(self._address, self._patience.lasting(seconds, before_retry), self._given_name, self._pool)

    def get(self, key: str) -> Blob:
        """Read one object. Raises `ObjectNotFound`."""
        buffer = io.BytesIO()
        headers = self._fetch(key, buffer)
        return Blob(buffer.getvalue(), headers["etag"].strip('"'), _read_age(headers))

    def put(self, key: str, data: bytes) -> str:
        """Write an object whatever was there; returns its etag."""
        with self._explained(key):
            return self._write(key, data, {})

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create an object; returns its etag. Raises `ObjectExists`; of concurrent creators exactly one wins."""
        with self._explained(key, ObjectExists(f"{self.uri}: {key} exists already")):
            return self._write_if({"If-None-Match": "*"}, key, data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Compare-and-swap: write only if the object still has `etag`. Raises `ObjectChanged`, `ObjectNotFound`."""
        with self._explained(key, ObjectChanged(f"{self.uri}: {key} has changed since it was read")):
            return self._write_if({"If-Match": f'"{etag}"'}, key, data)

    def list(self, prefix: str) -> Iterator[Entry]:
        """List the objects whose key starts with `prefix`, in the order of their keys."""
        start = self._address.prefix + checked_prefix(prefix)

        def entries() -> list[Entry]:
            found = self._client.list_objects(self._address.bucket, start, recursive=True)
            return [self._entry(each) for each in found if not each.is_dir]

        with self._explained(prefix):
            # SeaweedFS lists folder by folder, which puts a/b before a-b.
            return iter(sorted(self._patience.repeat(entries, _reading_trouble_of), key=lambda entry: entry.key))

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        with self._explained(key):
            self._client.remove_object(self._address.bucket, self._name(key))

    def upload(self, key: str, path: Path) -> None:
        """Write a file of any size (in parts where it is large)."""
        with self._explained(key):
            for tries in range(1, TRIES + 1):
                try:
                    return self._upload(key, path)
                except S3Error as error:
                    # The last request of an upload in parts was done, its answer lost, and its second try finds nothing
                    # to complete; or the server forgot the upload. To write the same once more is harmless.
                    if error.code != "NoSuchUpload" or tries == TRIES:
                        raise

    def download(self, key: str, path: Path) -> None:
        """Fetch an object of any size into a file. Raises `ObjectNotFound`."""
        with replace_on_success(path) as temporary, temporary.open("wb") as file:
            self._fetch(key, file)

    def _name(self, key: str) -> str:
        return self._address.prefix + checked_key(key)

    def _write(self, key: str, data: bytes, headers: dict[str, str]) -> str:
        # The SDK's put_object turns If-Match into x-amz-meta-if-match. Below it, what it calls itself for data of one
        # part takes headers as they are, and signs and sends them.
        headers = {"Content-Type": "application/octet-stream", **headers}
        return str(self._client._put_object(self._address.bucket, self._name(key), data, headers).etag)

    def _write_if(self, condition: dict[str, str], key: str, data: bytes) -> str:
        try:
            return self._write(key, data, condition)
        except S3Error as error:
            if error.response.status not in _BEATEN or not was_in_doubt(error):
                raise
            # An earlier try may have won, with its answer lost: then what is there is what it wrote.
            there = self._found(key)
            if there is None or there.data != data:
                raise
            return there.etag

    def _found(self, key: str) -> Blob | None:
        try:
            return self.get(key)
        except ObjectNotFound:
            return None

    def _upload(self, key: str, path: Path) -> None:
        def send() -> None:
            self._client.fput_object(
                self._address.bucket,
                self._name(key),
                str(path),
                part_size=max(PART_BYTES, -(-path.stat().st_size // MOST_PARTS)),
                num_parallel_uploads=PARTS_AT_ONCE,
            )

        # Each request is repeated on its own; all of them are when an answer cannot be read.
        self._patience.repeat(send, _reading_trouble_of)

    def _fetch(self, key: str, sink: BinaryIO) -> Mapping[str, str]:
        """Stream an object into `sink`, from its beginning again where it breaks off; returns the answer's headers."""
        furthest = 0

        def got_further() -> bool:
            nonlocal furthest
            before, furthest = furthest, max(furthest, sink.tell())
            return furthest > before

        with self._explained(key):
            return self._patience.repeat(lambda: self._stream(key, sink), _reading_trouble_of, got_further)

    def _stream(self, key: str, sink: BinaryIO) -> Mapping[str, str]:
        sink.seek(0)
        sink.truncate()
        response = self._client.get_object(self._address.bucket, self._name(key))
        try:
            if "etag" not in response.headers:
                raise ProtocolError(_NO_ETAG)
            for chunk in response.stream(1 << 20, decode_content=False):
                sink.write(chunk)
            headers: Mapping[str, str] = response.headers
            return headers
        finally:
            response.close()
            response.release_conn()

    def _entry(self, found: object) -> Entry:
        key = found.object_name.removeprefix(self._address.prefix)  # type: ignore[attr-defined]
        return Entry(key, found.size, found.last_modified.timestamp())  # type: ignore[attr-defined]

    @contextmanager
    def _explained(self, key: str, beaten: StoreError | None = None) -> Iterator[None]:
        """Turn the SDK's errors into ours; `beaten` is the one for a condition that did not hold."""
        try:
            yield
        except S3Error as error:
            raise self._refusal(error, key, beaten) from error
        except OutOfPatience as error:
            raise self._no_answer(f"{error}", error.seconds) from error
        except NameResolutionError as error:
            raise self._unknown_name(error) from error
        except (HTTPError, ServerError, InvalidResponseError) as error:
            if isinstance(error, HTTPError) and is_untrusted(error):
                raise self._untrusted(error) from error
            raise self._no_answer(f"{error}") from error

    def _refusal(self, error: S3Error, key: str, beaten: StoreError | None) -> StoreError:
        status, said = error.response.status, f"{error.code}: {error.message}"
        if beaten is not None and status in _BEATEN:
            return beaten
        if error.code == "NoSuchKey":
            return ObjectNotFound(f"{self.uri}: there is no object {key}")
        if error.code == "NoSuchBucket":
            return StoreRefused(
                self._line(f"there is no bucket {self._address.bucket!r}{self._at}; create it, or correct its name")
            )
        if error.code in _WRONG_REGION:
            return StoreRefused(self._line(f"the bucket is in another region; set AWS_REGION ({said})"))
        if status in (401, 403):
            return StoreRefused(
                self._line(
                    f"refused{self._at}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do ({said})"
                )
            )
        if status == 429 or status >= 500:
            return self._no_answer(f"{status} {said}")
        return StoreError(self._line(f"{key}: {status} {said}"))

    def _no_answer(self, reason: str, seconds: float = 0.0) -> StoreUnreachable:
        endpoint, reason = self._address.endpoint, _in_one_line(reason)
        if seconds:
            return StoreStaysAway(
                self._line(
                    f"no answer from {endpoint} for {format_duration(seconds)} ({reason}); check that the server runs, "
                    f"then run this again; store_patience_seconds={seconds:g} is how long a step waits"
                )
            )
        return StoreUnreachable(self._line(f"no answer from {endpoint}; is the server running? ({reason})"))

    def _unknown_name(self, error: NameResolutionError) -> StoreUnreachable:
        return StoreUnreachable(
            self._line(f"no answer from {self._address.endpoint}; is its name right? ({unresolved(error)})")
        )

    def _untrusted(self, error: HTTPError) -> StoreRefused:
        return StoreRefused(
            self._line(
                f"the TLS certificate of {self._address.endpoint} is not trusted; name your authority's file in "
                f"AWS_CA_BUNDLE, or correct the endpoint ({_in_one_line(f'{error}')})"
            )
        )

    def _line(self, text: str) -> str:
        return f"{self._named}: {text}"


class _Client(Minio):  # type: ignore[misc]
    """The SDK's client; each of its requests is repeated, and signed anew, as the store's patience says."""

    def __init__(self, patience: Patience, address: S3Address, pool: PoolManager):
        super().__init__(
            address.host,
            address.access_key,
            address.secret_key,
            address.session_token,
            secure=address.secure,
            region=address.region,
            http_client=pool,
        )
        self._patience = patience

    def __del__(self) -> None:
        """Leave the pool open, which the SDK would close: another client may use it."""

    def _url_open(self, method: str, *given: Any, **named: Any) -> Any:
        def send() -> Any:
            response = super(_Client, self)._url_open(method, *given, **named)
            if method in ("POST", "PUT") and b"<Error>" in response.data[:1000]:
                # The end of an upload in parts may fail after the status was sent.
                raise S3Error.fromxml(response)
            if method == "PUT" and named.get("object_name") and "etag" not in response.headers:
                # A proxy's page: nothing was written.
                raise ProtocolError(_NO_ETAG)
            return response

        return self._patience.repeat(send, _trouble_of)


def _read_age(headers: Mapping[str, str]) -> float | None:
    """Return the seconds since an object was written, or None. Both dates are the server's, in whole seconds."""
    try:
        now, written = (parsedate_to_datetime(headers[name]) for name in ("date", "last-modified"))
        return max((now - written).total_seconds() - 1.0, 0.0)
    except (KeyError, ValueError, TypeError):
        return None


def _trouble_of(error: Exception, was_reached: bool) -> Trouble | None:
    """Return why a request failed, or None where it would fail again."""
    if isinstance(error, HTTPError):
        return connection_trouble(error, was_reached)
    if _is_unreadable(error):
        return Trouble(f"its answer cannot be read: {error}")
    if isinstance(error, S3Error):
        status, cause = error.response.status, f"{error.response.status} {error.code}: {error.message}"
        if error.code in _BROKEN_OFF:
            return Trouble(cause)
        return _status_trouble(status, cause) if status != 200 else Trouble(cause)
    if isinstance(error, ServerError):
        return _status_trouble(error.status_code, _in_one_line(f"{error}"))
    if isinstance(error, InvalidResponseError):
        return _status_trouble(error._code, _in_one_line(f"{error}"))
    return None


def _reading_trouble_of(error: Exception, was_reached: bool) -> Trouble | None:
    """Return why an answer could not be read to its end; the request for it was repeated before, where that helps."""
    if isinstance(error, (ProtocolError, ReadTimeoutError, SSLError)):
        return connection_trouble(error, True)
    return Trouble(f"its answer cannot be read: {error}") if _is_unreadable(error) else None


def _is_unreadable(error: Exception) -> bool:
    """Whether an answer was no XML, or not the XML that the SDK expects."""
    return isinstance(error, (ParseError, UnicodeDecodeError)) or f"{error}".startswith("XML element")


def _status_trouble(status: int, cause: str) -> Trouble | None:
    if status == _CONFLICT:
        return Trouble(cause, in_doubt=False, brief=True)
    if status == _TOO_MANY:
        return Trouble(cause, in_doubt=False)
    return Trouble(cause) if status == _TOO_SLOW or (status >= 500 and status != _NOT_IMPLEMENTED) else None


def _in_one_line(text: str) -> str:
    return " ".join(text.split())[:300]
