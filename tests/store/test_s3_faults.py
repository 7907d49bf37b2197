"""What the S3 store does when servers and networks fail. Real sockets; a small S3 server that fails as it is told."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from oatflow.components.errors import (
    ObjectChanged,
    ObjectExists,
    RefusedInput,
    StoreRefused,
    StoreUnreachable,
)
from oatflow.components.store import patience
from oatflow.components.store.s3 import PART_BYTES, S3Store
from oatflow.components.store.store import open_store

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "do-not-print-me"}


@dataclass
class Script:
    """What goes wrong, one fault a request until there is none left, and what was asked.

    Faults: None; a status to answer instead; "drop" the connection before the request is done; do it, but "lose" the
    answer; "truncate" the body of the answer.
    """

    faults: list[int | str | None] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


class FaultyS3(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.script.lock:
            self.script.asked.append(f"{self.command} {self.path}")
            fault = self.script.faults.pop(0) if self.script.faults else None
            if isinstance(fault, int):
                return self._answer(fault, error("SlowDown" if fault == 503 else f"Fault{fault}"))
            if fault == "drop":
                return self._hang_up()
            status, answer, headers = self._do(body)
        if fault == "lose":
            return self._hang_up()
        self._answer(status, answer, headers, truncate=fault == "truncate")

    do_GET = do_PUT = do_POST = do_DELETE = _serve

    def _do(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        url = urlsplit(self.path)
        key, query, objects = unquote(url.path), parse_qs(url.query, keep_blank_values=True), self.script.objects
        if self.command == "DELETE" and "uploadId" in query:
            return (
                (204, b"", {})
                if self.script.parts.pop(query["uploadId"][0], None)
                else (404, error("NoSuchUpload"), {})
            )
        if self.command == "GET":
            return (200, objects[key], etag(objects[key])) if key in objects else (404, error("NoSuchKey"), {})
        if self.command == "POST":
            return self._multipart(key, query)
        if "partNumber" in query:
            self.script.parts[query["uploadId"][0]][int(query["partNumber"][0])] = body
            return 200, b"", etag(body)
        if self.headers.get("If-None-Match") == "*" and key in objects:
            return 412, error("PreconditionFailed"), {}
        if "If-Match" in self.headers and (
            key not in objects or self.headers["If-Match"] != etag(objects[key])["ETag"]
        ):
            return 412, error("PreconditionFailed"), {}
        objects[key] = body
        return 200, b"", etag(body)

    def _multipart(self, key: str, query: dict[str, list[str]]) -> tuple[int, bytes, dict[str, str]]:
        if "uploads" in query:
            upload = str(len(self.script.asked))
            self.script.parts[upload] = {}
            return 200, f"<R><UploadId>{upload}</UploadId></R>".encode(), {}
        parts = self.script.parts.pop(query["uploadId"][0], None)
        if parts is None:
            return 404, error("NoSuchUpload"), {}
        self.script.objects[key] = b"".join(parts[number] for number in sorted(parts))
        return 200, b"<R><Bucket>bucket</Bucket><Key>k</Key><ETag>e</ETag></R>", {}

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, truncate: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/xml", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if truncate else body)
        if truncate:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def etag(data: bytes) -> dict[str, str]:
    return {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def store(script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    monkeypatch.setattr(patience, "_PAUSE_SECONDS", 0.001)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (FaultyS3,), {"script": script}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield S3Store.open(f"s3://bucket/x?endpoint=http://127.0.0.1:{server.server_port}", KEYS)
    server.shutdown()
    server.server_close()


FAULTS = [[503], [500, 502, 504], ["drop"], ["lose"], ["drop", 503, "lose", 429]]


@pytest.mark.parametrize("faults", FAULTS)
def test_reading_and_writing_survive_what_passes(store: S3Store, script: Script, faults: list[int | str]) -> None:
    script.faults = list(faults)
    store.put("a", b"data")
    script.faults = list(faults)
    assert store.get("a").data == b"data"
    assert not script.faults


@pytest.mark.parametrize("faults", [["truncate"], ["truncate", "drop", "truncate"], ["truncate", 503]])
def test_an_answer_that_breaks_off_is_asked_for_again(
    store: S3Store, script: Script, tmp_path: Path, faults: list[int | str]
) -> None:
    data = bytes(range(256)) * 20_000
    store.put("a", data)
    script.faults = list(faults)
    assert store.get("a").data == data
    script.faults = list(faults)
    store.download("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == data


def test_asking_ends(store: S3Store, script: Script, tmp_path: Path) -> None:
    script.faults = [503] * 100
    with pytest.raises(StoreUnreachable, match=r"no answer from http://127.*503 SlowDown"):
        store.put("a", b"")
    assert len(script.asked) == 5
    script.faults = []
    store.put("a", b"data")
    script.faults = ["truncate"] * 100
    with pytest.raises(StoreUnreachable, match="no answer from http://127"):
        store.download("a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("faults", [["lose"], ["drop"], [500, "lose"], ["lose", 503]])
def test_who_created_it_has_won_though_the_answer_was_lost(
    store: S3Store, script: Script, faults: list[int | str]
) -> None:
    script.faults = list(faults)
    assert store.put_if_absent("claim", b"mine") == store.get("claim").etag
    script.faults = list(faults)
    assert store.replace("claim", b"renewed", _etag_of(b"mine"))
    assert store.get("claim").data == b"renewed"


def test_another_won_while_answers_were_lost(store: S3Store, script: Script) -> None:
    etag_ = store.put("claim", b"another's")
    script.faults = ["drop"]
    with pytest.raises(ObjectExists):
        store.put_if_absent("claim", b"mine")
    store.put("claim", b"another's new")
    script.faults = ["lose"]
    with pytest.raises(ObjectChanged):
        store.replace("claim", b"mine", etag_)
    assert store.get("claim").data == b"another's new"


def test_equal_bytes_of_another_are_not_mine_unless_an_answer_was_lost(store: S3Store, script: Script) -> None:
    store.put("claim", b"same")
    script.faults = [409]  # refused, so certainly not done
    with pytest.raises(ObjectExists):
        store.put_if_absent("claim", b"same")


def test_a_large_file_survives_faults_in_its_parts(store: S3Store, script: Script, tmp_path: Path) -> None:
    data = bytes(range(256)) * (2 * PART_BYTES // 256 + 1000)
    (tmp_path / "large").write_bytes(data)
    script.faults = [503, "drop", 500, "lose"]
    store.upload("large", tmp_path / "large")
    assert script.objects["/bucket/x/large"] == data


def test_a_large_file_survives_the_loss_of_the_last_answer(store: S3Store, script: Script, tmp_path: Path) -> None:
    data = b"x" * (PART_BYTES + 1)
    (tmp_path / "large").write_bytes(data)
    # One request to begin, two parts, and the one to complete: it is done, its answer lost, its retry finds nothing.
    script.faults = [None, None, None, "lose"]
    store.upload("large", tmp_path / "large")
    assert len(script.asked) == 4 + 1 + 1 + 4  # ... so the SDK calls the upload off, in vain, and it is done again
    assert script.objects["/bucket/x/large"] == data


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_a_refusal_is_no_fault_and_keeps_the_secret(
    store: S3Store, script: Script, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(FaultyS3, "_do", lambda *_: (403, error(code), {}))
    with pytest.raises(StoreRefused, match=rf"ledger=s3://bucket/x.*AWS_SECRET_ACCESS_KEY.*{code}") as refused:
        store.get("a")
    assert len(script.asked) == 1
    assert "do-not-print-me" not in f"{refused.value!s} {refused.value!r} {store!r} {store.__dict__}"


def test_a_bucket_that_is_not_there_is_named(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultyS3, "_do", lambda *_: (404, error("NoSuchBucket"), {}))
    with pytest.raises(StoreRefused, match="no bucket 'bucket'; create it"):
        store.put_if_absent("a", b"")


def test_a_server_that_is_no_s3_server_is_told_apart(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultyS3, "_do", lambda *_: (404, b"<html>hello</html>", {"Content-Type": "text/html"}))
    with pytest.raises(StoreUnreachable, match="non-XML response"):
        store.get("a")


@pytest.mark.slow
def test_a_server_that_is_not_there_is_named_within_seconds() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        store = S3Store.open(f"s3://bucket/x?endpoint={endpoint}", KEYS)
        began = time.monotonic()
        with pytest.raises(
            StoreUnreachable, match=rf"ledger=s3://bucket/x.*: no answer from {endpoint}; is the server"
        ):
            store.get("a")
        assert 5 < time.monotonic() - began < 12


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3:///prefix",
        "s3://bucket/x?endpoint=127.0.0.1:8333",
        "s3://bucket/x?endpoint=http://h:1/path",
        "s3://bucket/x?endpont=http://h:1",
        "s3://bucket/../x",
        "s3://key:do-not-print-me@bucket/x",
        "s3://bucket/x?endpoint=http://key:do-not-print-me@h:1",
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_without_its_secrets(uri: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        S3Store.open(uri, KEYS)
    assert "do-not-print-me" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_keys_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    with pytest.raises(RefusedInput, match="ledger=s3://bucket/x: AWS_SECRET_ACCESS_KEY not set"):
        open_store("s3://bucket/x")


def _etag_of(data: bytes) -> str:
    return etag(data)["ETag"].strip('"')
