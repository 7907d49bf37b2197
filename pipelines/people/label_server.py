"""Serves the labelling page on this machine's loopback address, and writes its answers into the ledger.

Only a browser on this machine (or at the other end of a tunnel to it) reaches the server. Its address has a secret, so
that other users of this machine can neither read the questions nor answer them. Other web sites cannot use it: a
request must name this machine as its host, and come from the page itself.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from oatflow.components.errors import OatflowError, RefusedInput
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.oracles.settings import HumanSettings
from oatflow.components.people.annotations import annotator_name, as_shown, read_answer
from oatflow.components.people.questions import Batch, to_page
from oatflow.components.records.json_text import parse_json
from oatflow.components.rounds.annotation_files import add_answers, is_answered, read_annotations

HOST = "127.0.0.1"
OURS = {"127.0.0.1", "localhost"}
MOST_BYTES = 8 * 2**20
"""The size limit of a request: answers to about 40,000 duels."""
NOTHING = "there is nothing here; the whole address is in the terminal"
SILENCE_SECONDS = 30
"""How long a connection may be silent."""


class Refused(Exception):
    """A request that is not served, and why."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class AnswerCollector:
    """Adds the answers to one round's questions to the ledger, one request after another."""

    def __init__(self, ledger: Ledger, batch: Batch, settings: HumanSettings):
        self.page = to_page(batch)
        self.secret = secrets.token_urlsafe(16)
        self._ledger, self._batch, self._settings = ledger, batch, settings
        self._one_at_a_time = threading.Lock()
        self.finished = threading.Event()

    def read_answers_of(self, annotator: str) -> dict[str, str]:
        """Return the answers that this person has given, as the page writes them."""
        name = annotator_name(annotator, "annotator")
        rows = read_annotations(self._ledger, self._batch.round)
        return {row.duel_id: as_shown(row) for row in rows if row.annotator == name}

    def add_request(self, body: Any) -> int:
        """Write the answers of a request into the ledger; returns how many are new."""
        rows = body.get("answers") if isinstance(body, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise RefusedInput("expected {'answers': [{'duel_id', 'annotator', 'verdict'}, ...]}")
        annotations = [read_answer(row, f"answer {n}", self._batch.shown) for n, row in enumerate(rows, 1)]
        with self._one_at_a_time:
            new = add_answers(self._ledger, self._batch.round, annotations)
            if is_answered(self._ledger, self._batch.round, self._settings):
                self.finished.set()
        return new


class Handler(BaseHTTPRequestHandler):
    """Answers one request: for the page, for the answers of one person, or with new answers."""

    collector: AnswerCollector
    timeout = SILENCE_SECONDS

    def do_GET(self) -> None:
        """Send the page, or the answers of one person."""
        self._send_reply(self._handle_get)

    def do_POST(self) -> None:
        """Add answers."""
        self._send_reply(self._handle_post)

    def _handle_get(self) -> tuple[bytes, str]:
        path = self._read_path()
        if path == "":
            return self.collector.page, "text/html; charset=utf-8"
        if path != "answers":
            raise Refused(HTTPStatus.NOT_FOUND, NOTHING)
        name = parse_qs(urlsplit(self.path).query).get("annotator", [""])[0]
        return _to_json({"answers": self.collector.read_answers_of(name)})

    def _handle_post(self) -> tuple[bytes, str]:
        if self._read_path() != "answers":
            raise Refused(HTTPStatus.NOT_FOUND, NOTHING)
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise Refused(HTTPStatus.FORBIDDEN, "answers are taken from the page alone")
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
        return _to_json({"new": self.collector.add_request(self._read_body())})

    def _read_path(self) -> str:
        """Return what follows the secret in the request's path; raises `Refused` if the secret is not there."""
        secret, slash, rest = urlsplit(self.path).path.removeprefix("/").partition("/")
        # Without the slash the page would send its answers to another address.
        if not slash or not hmac.compare_digest(secret.encode(), self.collector.secret.encode()):
            raise Refused(HTTPStatus.NOT_FOUND, NOTHING)
        return rest

    def _read_body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
        if int(length) > MOST_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MOST_BYTES >> 20} MiB")
        try:
            return parse_json(self.rfile.read(int(length)))
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"not JSON ({error})") from error

    def _send_reply(self, handle: Any) -> None:
        try:
            # Any other host name could belong to another web site (DNS rebinding).
            if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in OURS:
                raise Refused(HTTPStatus.FORBIDDEN, "not the name of this machine")
            body, kind = handle()
            status = HTTPStatus.OK
        except Refused as refused:
            status, (body, kind) = refused.status, _to_json({"error": str(refused)})
        except RefusedInput as error:
            status, (body, kind) = HTTPStatus.UNPROCESSABLE_ENTITY, _to_json({"error": str(error)})
        except OatflowError as error:
            status, (body, kind) = HTTPStatus.SERVICE_UNAVAILABLE, _to_json({"error": str(error)})
        except ValueError:
            status, (body, kind) = HTTPStatus.BAD_REQUEST, _to_json({"error": "not a request that can be read"})
        self._send_bytes(status, body, kind)

    def _send_bytes(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        # A body that was refused unread would be read as the next request.
        self.close_connection = True
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            # The address has a secret.
            "Referrer-Policy": "no-referrer",
            "Connection": "close",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the answers of people are private."""


def serve_page(ledger: Ledger, batch: Batch, settings: HumanSettings, port: int | None = None) -> None:
    """Serve the page until every duel is answered, or somebody stops it."""
    collector = AnswerCollector(ledger, batch, settings)
    if is_answered(ledger, batch.round, settings):
        return
    with open_server(collector, port, usual_port(batch)) as server:
        address = f"http://{HOST}:{server.server_port}/{collector.secret}/"
        print(f"{address}   label here; Ctrl-C stops, and what was sent is kept", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            collector.finished.wait()
        except KeyboardInterrupt:
            print()
        server.shutdown()


def open_server(collector: AnswerCollector, port: int | None, usual: int) -> ThreadingHTTPServer:
    """Open the given port, or if there is none the usual one, or any that is free."""
    handler = type("CollectingHandler", (Handler,), {"collector": collector})
    for candidate in (usual, 0) if port is None else (port,):
        try:
            return ThreadingHTTPServer((HOST, candidate), handler)
        except (OSError, OverflowError) as error:
            refused = error
    raise RefusedInput(f"port={port}: cannot be opened ({refused}); choose another, or none")


def usual_port(batch: Batch) -> int:
    """Return the same port for the same page: the browser stores unsent answers by address."""
    digest = hashlib.sha256(f"{batch.experiment}/{batch.round}/{batch.digest}".encode()).digest()
    return 49152 + int.from_bytes(digest[:4], "big") % (65536 - 49152)


def _to_json(body: Mapping[str, Any]) -> tuple[bytes, str]:
    return json.dumps(body).encode(), "application/json"
