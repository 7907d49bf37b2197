"""An S3 bucket as a store: SeaweedFS, MinIO, AWS. The only module that knows the SDK.

Requests are tried again below the SDK (`patience`); what this module adds is what a request's retry cannot know:
a body that breaks off, and whether a conditional write that was tried twice was won by its own first try.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError, ReadTimeoutError

from ..errors import ObjectChanged, ObjectExists, ObjectNotFound, StoreError, StoreRefused, StoreUnreachable
from .files import arriving
from .keys import checked_key, checked_prefix
from .patience import TRIES, connections, may_have_been_done_before, pause
from .s3_address import S3Address
from .store import Blob, Entry

# Memory is at most four parts for every file in flight. Larger parts were not faster: an S3 server spends its time on
# MD5, whatever their size.
PART_BYTES = 8 << 20
PARTS_AT_ONCE = 3
MOST_PARTS = 10_000

_WRONG_REGION = {"PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed"}


class S3Store:
    """The objects below one prefix of a bucket. Safe to share between threads."""

    def __init__(self, address: S3Address):
        self.uri = address.uri
        self._address = address
        self._client = Minio(
            address.host,
            address.access_key,
            address.secret_key,
            address.session_token,
            secure=address.secure,
            region=address.region,
            http_client=connections(),
        )

    @classmethod
    def open(cls, uri: str, environment: Mapping[str, str] = os.environ) -> S3Store:
        """Open ``s3://bucket/prefix?endpoint=http://host:port`` with the keys of the environment; asks nothing yet."""
        return cls(S3Address.parse(uri, environment))

    def get(self, key: str) -> Blob:
        """Read one object. Raises `ObjectNotFound`."""
        buffer = io.BytesIO()
        etag = self._fetch(key, buffer)
        return Blob(buffer.getvalue(), etag)

    def put(self, key: str, data: bytes) -> str:
        """Write an object whatever was there; returns its etag."""
        with self._letters(key):
            return self._write(key, data, {})

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create an object; returns its etag. Raises `ObjectExists`; of concurrent creators exactly one wins."""
        with self._letters(key, ObjectExists(f"{self.uri}: {key} exists already")):
            return self._write_if({"If-None-Match": "*"}, key, data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Compare-and-swap: write only if the object still has `etag`. Raises `ObjectChanged`, `ObjectNotFound`."""
        with self._letters(key, ObjectChanged(f"{self.uri}: {key} has changed since it was read")):
            return self._write_if({"If-Match": f'"{etag}"'}, key, data)

    def list(self, prefix: str) -> Iterator[Entry]:
        """List the objects whose key starts with `prefix`, in the order of their keys."""
        with self._letters(prefix):
            found = self._client.list_objects(
                self._address.bucket, self._address.prefix + checked_prefix(prefix), recursive=True
            )
            entries = [self._entry(each) for each in found if not each.is_dir]
        # SeaweedFS lists folder by folder, which puts a/b before a-b.
        return iter(sorted(entries, key=lambda entry: entry.key))

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""
        with self._letters(key):
            self._client.remove_object(self._address.bucket, self._name(key))

    def upload(self, key: str, path: Path) -> None:
        """Write a file of any size (in parts where it is large)."""
        with self._letters(key):
            try:
                self._upload(key, path)
            except S3Error as error:
                if error.code != "NoSuchUpload":
                    raise
                # The last request of an upload in parts was done, its answer lost, and its second try finds nothing
                # to complete. To write the same once more is harmless.
                self._upload(key, path)

    def download(self, key: str, path: Path) -> None:
        """Fetch an object of any size into a file. Raises `ObjectNotFound`."""
        with arriving(path) as temporary, temporary.open("wb") as file:
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
            if error.response.status != 412 or not may_have_been_done_before(error.response):
                raise
            # An earlier try may have won, with its answer lost: then what is there is what it wrote.
            there = self.get(key)
            if there.data != data:
                raise
            return there.etag

    def _upload(self, key: str, path: Path) -> None:
        self._client.fput_object(
            self._address.bucket,
            self._name(key),
            str(path),
            part_size=max(PART_BYTES, -(-path.stat().st_size // MOST_PARTS)),
            num_parallel_uploads=PARTS_AT_ONCE,
        )

    def _fetch(self, key: str, sink: BinaryIO) -> str:
        """Stream an object into `sink`, from its beginning again where it breaks off; returns its etag."""
        with self._letters(key):
            for tries in range(1, TRIES):
                try:
                    return self._stream(key, sink)
                except (ProtocolError, ReadTimeoutError):
                    pause(tries)
            return self._stream(key, sink)

    def _stream(self, key: str, sink: BinaryIO) -> str:
        sink.seek(0)
        sink.truncate()
        response = self._client.get_object(self._address.bucket, self._name(key))
        try:
            for chunk in response.stream(1 << 20, decode_content=False):
                sink.write(chunk)
            return str(response.headers["etag"]).strip('"')
        finally:
            response.close()
            response.release_conn()

    def _entry(self, found: object) -> Entry:
        key = found.object_name.removeprefix(self._address.prefix)  # type: ignore[attr-defined]
        return Entry(key, found.size, found.last_modified.timestamp())  # type: ignore[attr-defined]

    @contextmanager
    def _letters(self, key: str, beaten: StoreError | None = None) -> Iterator[None]:
        """Turn the SDK's errors into ours; `beaten` is the one for a condition that did not hold."""
        try:
            yield
        except S3Error as error:
            raise self._refusal(error, key, beaten) from error
        except MaxRetryError as error:
            raise self._no_answer(f"{error.reason}") from error
        except (HTTPError, ServerError, InvalidResponseError) as error:
            raise self._no_answer(f"{error}") from error

    def _refusal(self, error: S3Error, key: str, beaten: StoreError | None) -> StoreError:
        status, said = error.response.status, f"{error.code}: {error.message}"
        if beaten is not None and status in (409, 412):
            return beaten
        if error.code == "NoSuchKey":
            return ObjectNotFound(f"{self.uri}: there is no object {key}")
        if error.code == "NoSuchBucket":
            return StoreRefused(
                self._line(f"there is no bucket {self._address.bucket!r}; create it, or correct its name")
            )
        if error.code in _WRONG_REGION:
            return StoreRefused(self._line(f"the bucket is in another region; set AWS_REGION ({said})"))
        if status in (401, 403):
            return StoreRefused(
                self._line(f"refused; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do ({said})")
            )
        if status == 429 or status >= 500:
            return self._no_answer(f"{status} {said}")
        return StoreError(self._line(f"{key}: {status} {said}"))

    def _no_answer(self, reason: str) -> StoreUnreachable:
        reason = " ".join(reason.split())[:300]
        return StoreUnreachable(
            self._line(f"no answer from {self._address.endpoint}; is the server running? ({reason})")
        )

    def _line(self, text: str) -> str:
        return f"ledger={self.uri}: {text}"
