"""What the S3 store does when servers and networks fail. Real sockets; a small S3 server that fails as it is told."""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from oatflow.components.errors import (
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    RefusedInput,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from oatflow.components.store import connections, patience
from oatflow.components.store.s3 import PART_BYTES, S3Store
from oatflow.components.store.store import open_store
from urllib3.exceptions import ProtocolError, SSLError
from urllib3.response import HTTPResponse

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "do-not-print-me"}


Fault = int | str | None | Callable[[], int | str | None]


@dataclass
class Script:
    """What goes wrong, one fault a request until there is none left, and what was asked.

    Faults: None; a status to answer instead; "drop" the connection before the request is done; do it, but "lose" the
    answer; "truncate" the body of the answer; "hang" without an answer; "garble" the answer; answer 200 with an
    "error inside"; "break off" the request. A function is called first, and returns the fault.
    """

    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    signed: list[str | None] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


class FaultyS3(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet, or the other side would wait for the rest of it
    script: Script

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.script.lock:
            self.script.asked.append(f"{self.command} {self.path}")
            self.script.signed.append(self.headers.get("x-amz-date"))
            fault = self.script.faults.pop(0) if self.script.faults else None
            fault = fault() if callable(fault) else fault
            if fault == "break off":
                return self._answer(400, error("RequestTimeout"))
            if fault in ("garble", "error inside"):
                return self._answer(200, b"<html>" if fault == "garble" else error("InternalError"))
            if isinstance(fault, int):
                return self._answer(fault, error("SlowDown" if fault == 503 else f"Fault{fault}"))
            if fault == "drop":
                return self._hang_up()
            if fault != "hang":
                status, answer, headers = self._do(body)
        if fault == "hang":
            self.close_connection = True
            return time.sleep(3 * connections.ANSWER_SECONDS)
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
        if self.command == "DELETE":
            objects.pop(key, None)
            return 204, b"", {}
        if self.command == "GET" and "list-type" in query:
            return 200, listing(sorted(name.partition("/bucket/")[2] for name in objects)), {}
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


def listing(keys: list[str]) -> bytes:
    entry = "<Contents><Key>{}</Key><LastModified>2026-11-30T00:00:00.000Z</LastModified><Size>1</Size></Contents>"
    return f"<ListBucketResult><Name>bucket</Name>{''.join(map(entry.format, keys))}</ListBucketResult>".encode()


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


def test_a_large_file_survives_a_second_outage_during_its_second_upload(
    store: S3Store, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(b"x" * (PART_BYTES + 1))
    lost_at_the_end: list[Fault] = [None, None, None, "lose", None, None]
    script.faults = lost_at_the_end * 2
    store.upload("large", tmp_path / "large")
    script.faults = lost_at_the_end * 100
    with pytest.raises(StoreError, match="NoSuchUpload"):
        store.upload("large", tmp_path / "large")


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


def test_a_server_that_hangs_is_asked_twice_where_a_person_waits(
    script: Script, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.1)
    script.faults = ["hang"] * 5
    with pytest.raises(StoreUnreachable, match=r"no answer within 0\.1 s"):
        S3Store.open(store.uri, KEYS).get("a")
    assert len(script.asked) == 2


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3:///prefix",
        "s3://bucket/x?endpoint=127.0.0.1:8333",
        "s3://bucket/x?endpoint=http://h:1/path",
        "s3://bucket/x?endpont=http://h:1",
        "s3://bucket/../x",
        "s3://b/x",
        "s3://buck..et/x",
        "s3://bücket/x",
        "s3://10.0.0.1/x",
        "s3://bucket/x?endpoint=http://h:port",
        "s3://bucket/x?endpoint=http://h:99999",
        "s3://bucket/x?endpoint=http://[::1",
        "s3://[bucket/x",
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


@dataclass
class Clock:
    """The time that patience sees: it passes while somebody sleeps, and each request takes a tenth of a second."""

    now: float = 1000.0

    def monotonic(self) -> float:
        self.now += 0.05
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    monkeypatch.setattr("random.random", lambda: 0.5)
    return clock


@pytest.fixture
def patient(store: S3Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """The store as a step has it: it waits for ten minutes."""
    monkeypatch.setattr(patience, "_PAUSE_SECONDS", 0.5)
    return store.patient(600)


AWAY = {
    "500": [500] * 30,
    "SlowDown": [503] * 30,
    "too many requests": [429] * 30,
    "reset": ["drop"] * 30,
    "done, with its answers lost": ["lose"] + [500] * 10 + ["drop"] * 10 + [503] * 10,
    "broken off": ["break off"] * 30,
}


@pytest.mark.parametrize("faults", AWAY.values(), ids=AWAY)
def test_every_request_of_a_step_waits_for_a_store_that_is_away(
    patient: S3Store, script: Script, clock: Clock, tmp_path: Path, faults: list[Fault]
) -> None:
    (tmp_path / "large").write_bytes(b"x" * (PART_BYTES + 1))

    def away(act: Callable[[], object]) -> object:
        script.faults = list(faults)
        began = clock.now
        result = act()
        assert not script.faults
        assert clock.now - began > 120
        return result

    away(lambda: patient.put("a", b"1"))
    etag_ = away(lambda: patient.put_if_absent("claim", b"mine"))
    assert away(lambda: patient.replace("claim", b"renewed", str(etag_)))
    assert away(lambda: patient.get("claim")).data == b"renewed"  # type: ignore[attr-defined]
    away(lambda: patient.upload("large", tmp_path / "large"))
    away(lambda: patient.download("large", tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "large").read_bytes()
    away(lambda: patient.delete("a"))
    assert [entry.key for entry in away(lambda: list(patient.list("")))] == ["claim", "large"]  # type: ignore[attr-defined]


def test_a_hang_ends_with_the_request_and_is_waited_for(
    script: Script,
    store: S3Store,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.1)
    patient = S3Store.open(store.uri, KEYS, patience_seconds=600)
    script.faults = ["hang"] * 4
    assert patient.put_if_absent("claim", b"mine")
    assert len(script.asked) == 5
    assert "does not answer (no answer within 0.1 s)" in capsys.readouterr().out


def test_the_log_says_when_the_store_goes_each_minute_and_when_it_is_back(
    patient: S3Store, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script.faults = [500] * 22
    patient.put("a", b"")
    first, *reminders, last = capsys.readouterr().out.splitlines()
    server = f"the store {patient._address.endpoint}"
    assert first == f"{server} does not answer (500 Fault500: as told); trying again for up to 10 min"
    assert [line.partition(" (")[0] for line in reminders] == [
        f"{server} has not answered for {minutes}" for minutes in ("64 s", "2 min", "3 min")
    ]
    assert last == f"{server} answers again, after 4 min"


def test_one_request_that_fails_and_succeeds_at_once_is_not_worth_a_line(
    patient: S3Store, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    script.faults = ["drop"]
    patient.put("a", b"")
    assert capsys.readouterr().out == ""


def test_patience_ends_with_one_line_that_names_the_store_the_time_and_the_setting(
    patient: S3Store, script: Script, clock: Clock
) -> None:
    script.faults = [500] * 1000
    began = clock.now
    with pytest.raises(StoreUnreachable) as raised:
        patient.put("a", b"")
    assert str(raised.value) == (
        f"ledger={patient.uri}: no answer from {patient._address.endpoint} for 10 min (500 Fault500: as told); check "
        "that the server runs, then run this again; store_patience_seconds=600 is how long a step waits"
    )
    assert 600 <= clock.now - began < 615


def test_when_one_request_was_given_up_those_behind_it_are_not_waited_for_in_turn(
    patient: S3Store, script: Script, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "large").write_bytes(b"x" * (6 * PART_BYTES))
    script.faults = [None] + [500] * 10_000
    began = clock.now
    with pytest.raises(StoreUnreachable, match="for 10 min"):
        patient.upload("large", tmp_path / "large")
    assert clock.now - began < 900


FINAL = {
    "no access": (403, error("AccessDenied"), StoreRefused),
    "bad signature": (403, error("SignatureDoesNotMatch"), StoreRefused),
    "no credentials": (401, error("Unauthorized"), StoreRefused),
    "no object": (404, error("NoSuchKey"), ObjectNotFound),
    "no bucket": (404, error("NoSuchBucket"), StoreRefused),
    "another region": (400, error("AuthorizationHeaderMalformed"), StoreRefused),
    "not implemented": (501, error("NotImplemented"), StoreUnreachable),
    "not an S3 server": (404, b"<html>hello</html>", StoreUnreachable),
}


@pytest.mark.parametrize(("status", "body", "kind"), FINAL.values(), ids=FINAL)
def test_what_will_not_change_is_asked_once(
    patient: S3Store, script: Script, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, kind: type[Exception]
) -> None:
    types = {"Content-Type": "text/html"} if body.startswith(b"<html>") else {}
    monkeypatch.setattr(FaultyS3, "_do", lambda *_: (status, body, types))
    for ask in (lambda: patient.get("a"), lambda: patient.put("a", b""), lambda: patient.put_if_absent("a", b"")):
        script.asked.clear()
        with pytest.raises(kind):
            ask()
        assert len(script.asked) == 1


def test_a_name_that_never_was_resolved_is_asked_for_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names_that_fail(monkeypatch, socket.EAI_NONAME)
    store = S3Store.open("s3://bucket/x?endpoint=http://stroe.example:9000", KEYS, patience_seconds=600)
    with pytest.raises(
        StoreUnreachable, match=r"http://stroe.example:9000; is its name right\? \(Failed to resolve 'stroe.example'"
    ):
        store.get("a")
    assert asked == ["stroe.example"]


def test_a_name_server_that_does_not_answer_is_asked_a_few_times(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = names_that_fail(monkeypatch, socket.EAI_AGAIN)
    store = S3Store.open("s3://bucket/x?endpoint=http://store.example:9000", KEYS, patience_seconds=600)
    with pytest.raises(StoreUnreachable, match="is its name right"):
        store.get("a")
    assert len(asked) == 5


def test_a_name_that_was_resolved_once_is_waited_for(
    patient: S3Store, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.put("a", b"data")
    with monkeypatch.context() as broken:
        asked = names_that_fail(broken, socket.EAI_NONAME, times=30)
        script.faults = ["drop"]  # which closes the connection
        assert patient.get("a").data == b"data"
    assert len(asked) == 30


def test_a_name_is_waited_for_where_its_server_refused_connections_before(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service without a pod behind it may lose its name for as long."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = S3Store.open(f"s3://bucket/x?endpoint=http://127.0.0.1:{port}", KEYS, patience_seconds=600)
    tries = iter(range(10_000))
    as_it_is = socket.getaddrinfo

    def resolve(host: str, *given: object, **named: object) -> object:
        if 3 < next(tries) < 8:
            raise socket.gaierror(socket.EAI_NONAME, "as told")
        return as_it_is(host, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(StoreUnreachable, match="for 10 min"):
        store.get("a")


def names_that_fail(monkeypatch: pytest.MonkeyPatch, number: int, times: int = 10_000) -> list[str]:
    """Let no name be resolved for so many times; returns the names asked for."""
    asked: list[str] = []
    as_it_is = socket.getaddrinfo

    def fail(host: str, *given: object, **named: object) -> object:
        if len(asked) == times:
            return as_it_is(host, *given, **named)  # type: ignore[arg-type]
        asked.append(host)
        raise socket.gaierror(number, "as told")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    return asked


def test_a_certificate_that_is_not_trusted_is_refused_at_once(tmp_path: Path, clock: Clock) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1",
         "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections_made: list[int] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connections_made.append(1)
                with connection:
                    try:
                        context.wrap_socket(connection, server_side=True).close()
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        endpoint = f"https://127.0.0.1:{server.getsockname()[1]}"
        store = S3Store.open(f"s3://bucket/x?endpoint={endpoint}", KEYS, patience_seconds=600)
        with pytest.raises(StoreRefused, match=rf"certificate of {endpoint} is not trusted; .*AWS_CA_BUNDLE"):
            store.get("a")
        server.shutdown(socket.SHUT_RDWR)
        assert len(connections_made) == 1


@pytest.mark.parametrize("content", [None, "no certificate"], ids=["that is not there", "without a certificate"])
def test_a_file_of_authorities_is_refused_at_once(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "authorities.pem"))
    if content is not None:
        (tmp_path / "authorities.pem").write_text(content)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"https://127.0.0.1:{server.getsockname()[1]}"
        store = S3Store.open(f"s3://bucket/x?endpoint={endpoint}", KEYS, patience_seconds=600)
        began = clock.now
        with pytest.raises(StoreRefused, match="AWS_CA_BUNDLE"):
            store.get("a")
        assert clock.now - began < 1


def test_another_run_that_wrote_during_the_outage_has_won(patient: S3Store, script: Script) -> None:
    def taken_over() -> int:
        script.objects["/bucket/x/claim"] = b"another's"
        return 500

    script.faults = ["lose", *[500] * 10, taken_over, *[500] * 10]
    with pytest.raises(ObjectExists):
        patient.put_if_absent("claim", b"mine")
    etag_ = patient.put("claim", b"mine")
    script.faults = [500, *[500] * 10, taken_over, *["drop"] * 10]
    with pytest.raises(ObjectChanged):
        patient.replace("claim", b"renewed", etag_)
    assert patient.get("claim").data == b"another's"


def test_a_conflict_with_ones_own_lost_write_is_no_defeat(patient: S3Store, script: Script) -> None:
    script.faults = ["lose", *[409] * 4]
    assert patient.put_if_absent("claim", b"mine") == patient.get("claim").etag
    script.faults = [500, *[409] * 5]  # done by nobody
    with pytest.raises(ObjectExists):
        patient.put_if_absent("other", b"mine")


def test_a_conflict_at_the_end_of_an_outage_is_no_defeat(patient: S3Store, script: Script) -> None:
    """A create that the server still works on when it comes back: whoever asks again wins, or sees who did."""
    script.faults = ["drop", *[500] * 20, 409, 409]
    assert patient.put_if_absent("claim", b"mine") == patient.get("claim").etag


def test_equal_bytes_of_another_are_not_mine_where_no_request_arrived(
    patient: S3Store, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.put("claim", b"same")
    names_that_fail(monkeypatch, socket.EAI_AGAIN, times=10)
    patient._pool.clear()
    with pytest.raises(ObjectExists):
        patient.put_if_absent("claim", b"same")


def test_each_try_is_signed_anew_as_a_store_refuses_old_signatures(
    patient: S3Store, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime, timedelta

    times = (datetime(2026, 11, 30, tzinfo=UTC) + timedelta(minutes=number) for number in range(100))
    monkeypatch.setattr("minio.time.utcnow", lambda: next(times))
    script.faults = [500] * 20
    patient.put("a", b"")
    assert len(set(script.signed)) == 21


def test_an_upload_that_fails_after_its_status_was_sent_is_completed_again(
    patient: S3Store, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(b"x" * (PART_BYTES + 1))
    script.faults = [None, None, None, "error inside"]
    patient.upload("large", tmp_path / "large")
    assert len(script.objects["/bucket/x/large"]) == PART_BYTES + 1


def test_answers_that_are_not_s3s_are_asked_for_again(patient: S3Store, script: Script, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (PART_BYTES + 1))
    patient.put("a", b"data")
    script.faults = ["garble"] * 3
    assert patient.get("a").data == b"data"
    script.faults = ["garble"] * 3
    assert [entry.key for entry in patient.list("")] == ["a"]
    script.faults = ["garble"]
    patient.upload("large", tmp_path / "large")
    assert len(script.objects["/bucket/x/large"]) == PART_BYTES + 1


@pytest.mark.parametrize("fault", ["garble", "error inside"])
def test_a_write_is_not_believed_where_the_answer_is_not_s3s(
    patient: S3Store, script: Script, tmp_path: Path, fault: str
) -> None:
    """A proxy answers 200 with a page of its own, and nothing was written."""
    (tmp_path / "small").write_bytes(b"data")
    (tmp_path / "large").write_bytes(b"x" * (PART_BYTES + 1))
    for name, write in (
        ("put", lambda: patient.put("put", b"data")),
        ("created", lambda: patient.put_if_absent("created", b"data")),
        ("small", lambda: patient.upload("small", tmp_path / "small")),
    ):
        script.faults = [fault] * 3
        write()
        assert script.objects[f"/bucket/x/{name}"] == b"data"
    script.faults = [None, fault, fault]
    patient.upload("large", tmp_path / "large")
    assert len(script.objects["/bucket/x/large"]) == PART_BYTES + 1


def test_a_body_that_tls_breaks_off_is_asked_for_again(
    patient: S3Store, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.put("a", b"data")
    stream, breaks = HTTPResponse.stream, [ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC]")]
    breaks[0].reason = "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"

    def broken(self: HTTPResponse, *given: object, **named: object) -> Iterator[bytes]:
        if breaks:
            raise SSLError(breaks.pop())
        return stream(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(HTTPResponse, "stream", broken)
    assert patient.get("a").data == b"data"
    assert not breaks


@pytest.mark.parametrize("more", [1, 0])
def test_outages_during_one_long_download_do_not_add_up_while_it_gets_further(
    patient: S3Store, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    bytes_received = iter([10 + more * number for number in range(1, 6)])

    def stream(store: S3Store, _: str, sink: BinaryIO) -> str:
        store._patience._outage.note_answer()  # as each answer's beginning does
        sink.seek(0)
        sink.truncate()
        clock.sleep(400)
        sink.write(b"x" * next(bytes_received, 100))
        if sink.tell() < 100:
            raise ProtocolError("broken off")
        return "etag"

    monkeypatch.setattr(S3Store, "_stream", stream)
    if more:
        patient.download("large", tmp_path / "copy")
        assert (tmp_path / "copy").stat().st_size == 100
    else:
        with pytest.raises(StoreUnreachable, match="for 10 min"):
            patient.download("large", tmp_path / "copy")


def test_a_store_that_fails_one_object_alone_is_given_up_although_it_answers_others(
    patient: S3Store, script: Script, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each other request succeeds, as those of the thread that renews the claim do."""
    healthy = patient.patient(600)
    faults = iter(range(10_000))

    def fail() -> int:
        script.faults.append(fail)
        if next(faults) % 2:
            healthy._patience._outage.note_answer()
        return 500

    script.faults = [fail]
    with pytest.raises(StoreUnreachable, match="for 10 min"):
        patient.get("a")
    assert len(capsys.readouterr().out.splitlines()) <= 25
