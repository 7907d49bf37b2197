"""The labelling page on this machine's loopback address; its answers go straight into the ledger.

Only a browser on this machine (or at the other end of a tunnel to it) reaches it. Pages from elsewhere cannot make it
act: a request must name this machine as its host, and come from the page itself.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from oatflow.components.errors import OatflowError, RefusedInput
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.oracles.annotations import annotator_name, as_shown, read_answer
from oatflow.components.oracles.questions import Batch, to_page
from oatflow.components.oracles.settings import HumanSettings
from oatflow.components.rounds.people import add_answers, is_answered, read_annotations

HOST = "127.0.0.1"
OURS = {"127.0.0.1", "localhost"}
MOST_BYTES = 8 * 2**20
"""Of one request: answers to some 40,000 duels."""
PATIENCE = 30
"""Seconds that a connection may be silent."""


class Refused(Exception):
    """A request that is not served, and why."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class Desk:
    """Where the answers to one round's questions are handed in, one after another."""

    def __init__(self, ledger: Ledger, batch: Batch, settings: HumanSettings):
        self.page = to_page(batch)
        self._ledger, self._batch, self._settings = ledger, batch, settings
        self._one_at_a_time = threading.Lock()
        self.finished = threading.Event()

    def given_by(self, annotator: str) -> dict[str, str]:
        """Return what this person said already, in the words of the page."""
        name = annotator_name(annotator, "annotator")
        rows = read_annotations(self._ledger, self._batch.round)
        return {row.duel_id: as_shown(row) for row in rows if row.annotator == name}

    def take(self, body: Any) -> int:
        """Put answers into the ledger; returns how many are new."""
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
    """One request: the page, what somebody answered so far, or new answers."""

    desk: Desk
    timeout = PATIENCE

    def do_GET(self) -> None:
        """Give the page, or the answers of one person."""
        self._reply(self._get)

    def do_POST(self) -> None:
        """Take answers."""
        self._reply(self._post)

    def _get(self) -> tuple[bytes, str]:
        address = urlsplit(self.path)
        if address.path == "/":
            return self.desk.page, "text/html; charset=utf-8"
        if address.path != "/answers":
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        name = parse_qs(address.query).get("annotator", [""])[0]
        return _json({"answers": self.desk.given_by(name)})

    def _post(self) -> tuple[bytes, str]:
        if urlsplit(self.path).path != "/answers":
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise Refused(HTTPStatus.FORBIDDEN, "answers are taken from the page alone")
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
        return _json({"new": self.desk.take(self._body())})

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
        if int(length) > MOST_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MOST_BYTES >> 20} MiB")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"not JSON ({error})") from error

    def _reply(self, work: Any) -> None:
        try:
            # Another name for this machine would let a page from elsewhere pass for ours (DNS rebinding).
            if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in OURS:
                raise Refused(HTTPStatus.FORBIDDEN, "not the name of this machine")
            body, kind = work()
            status = HTTPStatus.OK
        except Refused as refused:
            status, (body, kind) = refused.status, _json({"error": str(refused)})
        except RefusedInput as error:
            status, (body, kind) = HTTPStatus.UNPROCESSABLE_ENTITY, _json({"error": str(error)})
        except OatflowError as error:
            status, (body, kind) = HTTPStatus.SERVICE_UNAVAILABLE, _json({"error": str(error)})
        except ValueError:
            status, (body, kind) = HTTPStatus.BAD_REQUEST, _json({"error": "not a request that can be read"})
        self._send(status, body, kind)

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        # What was refused unread would be taken for the next request.
        self.close_connection = True
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store",
                   "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Connection": "close"}  # fmt: skip
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what people answer is nobody's log."""


def serve(ledger: Ledger, batch: Batch, settings: HumanSettings, port: int | None = None) -> None:
    """Serve the page until every duel is answered, or somebody stops it."""
    desk = Desk(ledger, batch, settings)
    if is_answered(ledger, batch.round, settings):
        return
    with listen(desk, port, usual_port(batch)) as server:
        print(f"http://{HOST}:{server.server_port}/   label here; Ctrl-C stops, and what was sent is kept", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            desk.finished.wait()
        except KeyboardInterrupt:
            print()
        server.shutdown()


def listen(desk: Desk, port: int | None, usual: int) -> ThreadingHTTPServer:
    """Open the port that was asked for; without one the usual, or any that is free."""
    handler = type("DeskHandler", (Handler,), {"desk": desk})
    for candidate in (usual, 0) if port is None else (port,):
        try:
            return ThreadingHTTPServer((HOST, candidate), handler)
        except (OSError, OverflowError) as error:
            refused = error
    raise RefusedInput(f"port={port}: cannot be opened ({refused}); choose another, or none")


def usual_port(batch: Batch) -> int:
    """Return the port of this page: a browser keeps answers by address, so that it should be the same each time."""
    digest = hashlib.sha256(f"{batch.experiment}/{batch.round}/{batch.digest}".encode()).digest()
    return 49152 + int.from_bytes(digest[:4], "big") % (65536 - 49152)


def _json(body: Mapping[str, Any]) -> tuple[bytes, str]:
    return json.dumps(body).encode(), "application/json"
