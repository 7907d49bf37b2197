"""An S3 server that goes away and comes back: in front of objects in memory, or of a real server.

`leave` arms it: when a request comes that fits, the server refuses connections, answers 500 or hangs for some seconds.
A request that meets the beginning of the outage is carried out, and its answer lost, where the server is killed or
hangs; a server that answers 500 does nothing.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
# As SeaweedFS says it while its parts come up.
TRY_AGAIN = (
    b"<Error><Code>InternalError</Code><Message>We encountered an internal error, please try again.</Message></Error>"
)
Answer = tuple[int, dict[str, str], bytes]
Headers = dict[str, str]


@dataclass
class Memory:
    """Objects by path, with S3's conditional writes: as much as one small ledger needs."""

    objects: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, method: str, target: str, headers: Headers, body: bytes) -> Answer:
        """Carry out one request."""
        url = urlsplit(target)
        path, query = unquote(url.path), parse_qs(url.query, keep_blank_values=True)
        with self.lock:
            there = self.objects.get(path)
            if "list-type" in query:
                return 200, {}, self._listing(path, query["prefix"][0])
            if method == "DELETE":
                self.objects.pop(path, None)
                return 204, {}, b""
            if method == "GET":
                return (200, _etag(there), there) if there is not None else (404, {}, _error("NoSuchKey"))
            if headers.get("if-none-match") == "*" and there is not None:
                return 412, {}, _error("PreconditionFailed")
            if "if-match" in headers and (there is None or headers["if-match"] != _etag(there)["ETag"]):
                return 412, {}, _error("PreconditionFailed")
            self.objects[path] = body
            return 200, _etag(body), b""

    def _listing(self, bucket: str, prefix: str) -> bytes:
        entry = "<Contents><Key>{}</Key><LastModified>2026-11-30T00:00:00.000Z</LastModified><Size>{}</Size></Contents>"
        keys = {path.removeprefix(f"{bucket.rstrip('/')}/"): data for path, data in self.objects.items()}
        rows = [entry.format(key, len(data)) for key, data in sorted(keys.items()) if key.startswith(prefix)]
        return f"<ListBucketResult><Name>bucket</Name>{''.join(rows)}</ListBucketResult>".encode()


@dataclass
class RealServer:
    """A server that speaks S3 itself. The signature covers the name that its client called it by."""

    endpoint: str

    def ask(self, method: str, target: str, headers: Headers, body: bytes) -> Answer:
        """Pass one request on."""
        connection = http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=60)
        try:
            connection.request(method, target, body, {**headers, "connection": "close"})
            answer = connection.getresponse()
            passed_on = {name: answer.headers[name] for name in ("ETag", "Content-Type") if name in answer.headers}
            return answer.status, passed_on, answer.read()
        finally:
            connection.close()


class AbsentStore:
    """The server. `log`: every request that was carried out, when, and how it ended."""

    def __init__(self, upstream: Memory | RealServer):
        self._upstream = upstream
        self.log: list[tuple[float, str, str, int]] = []
        self.asked = 0
        self.outages = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._fits: Callable[[str, str], bool] | None = None
        self._kind, self._seconds, self._meanwhile = "", 0.0, lambda: None
        self._away = ""
        self._listen(0)

    @property
    def endpoint(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self._port}"

    def leave(
        self,
        kind: str,
        seconds: float,
        fits: Callable[[str, str], bool],
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Go away at the first request whose method and path fit; `meanwhile` is called before it comes back."""
        self._kind, self._seconds, self._fits, self._meanwhile = kind, seconds, fits, meanwhile

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()
        self._hang_up()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request, or do to it what the outage does."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        begins = self._begins(handler.command, handler.path)
        if self._away == "500":
            return self._answer(handler, (500, {}, TRY_AGAIN))
        if self._away and not begins:
            return self._keep_silent(handler)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        answer = self._upstream.ask(handler.command, handler.path, headers, body)
        self.log.append((time.monotonic(), handler.command, handler.path, answer[0]))
        if begins:
            return self._keep_silent(handler)
        self._answer(handler, answer)

    def _begins(self, method: str, path: str) -> bool:
        with self._lock:
            self.asked += 1
            if self._fits is None or not self._fits(method, path):
                return False
            self._fits = None
            self._away = self._kind
            self.outages += 1
            threading.Thread(target=self._stay_away, daemon=True).start()
            return True

    def _stay_away(self) -> None:
        if self._kind == "refuses":
            self._server.shutdown()
            self._server.server_close()
            time.sleep(0.05)  # the request that it met is carried out
            self._hang_up()
        time.sleep(self._seconds)
        self._meanwhile()
        if self._kind == "refuses":
            self._listen(self._port)
        self._away = ""

    def _keep_silent(self, handler: BaseHTTPRequestHandler) -> None:
        """Hold the connection open without an answer until its client gives up, or the server is killed."""
        handler.close_connection = True
        try:
            handler.connection.settimeout(300)
            handler.connection.recv(1)
        except OSError:
            return

    def _answer(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        status, headers, body = answer
        try:
            handler.send_response(status)
            for name, value in {"Content-Type": "application/xml", **headers}.items():
                handler.send_header(name, value)
            if status != 204:
                handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        except OSError:
            handler.close_connection = True

    def _listen(self, port: int) -> None:
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version, wbufsize = "HTTP/1.1", -1

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                store._sockets.add(self.connection)
                try:
                    super().handle()
                except OSError:
                    return  # its client hung up, or the server was killed
                finally:
                    store._sockets.discard(self.connection)

            def do_GET(self) -> None:
                store.serve(self)

            do_PUT = do_POST = do_DELETE = do_GET

        class Server(ThreadingHTTPServer):
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _hang_up(self) -> None:
        for each in list(self._sockets):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def _etag(data: bytes) -> dict[str, str]:
    return {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>as S3 says</Message></Error>".encode()
