"""A reward service on loopback that answers right, fails on purpose, and keeps count.

with faulty_service(rate=0.05, seed=1) as service:
    RemoteOracle(RemoteSettings(remote_url=service.url, remote_timeout=2)).compare_duels(duels)
    assert service.answered == {duel.duel_id: 1 for duel in duels}
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgpack
from oatflow.components.records.records import duel_id

FAULTS = ("error", "busy", "silent", "dropped", "slow", "truncated", "malformed", "miscounted")
IDENTITY = "reward_model/test@0123456789ab/T=1"


def right_answer(prompt: str, first: str, second: str) -> float:
    """The probability that the service answers with: a function of the duel, so that a mix-up shows."""
    digest = hashlib.sha256("\0".join((prompt, first, second)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class FaultyService:
    """What a test may set, and what it may read."""

    def __init__(self, rate: float, seed: int, faults: Sequence[str], hold: float):
        self.rate, self.seed, self.faults, self.hold = rate, seed, tuple(faults), hold
        self.identity = IDENTITY
        self.token: str | None = None
        self.down: Callable[[], bool] = lambda: False
        """While it says so, connections are closed without a word."""
        self.always: tuple[int, dict[str, str], bytes] | None = None
        """Reply to everything with this status, these headers and this body."""
        self.poisoned: Callable[[str], bool] = lambda prompt: False
        """Requests with such a prompt fail for ever."""
        self.after_answers: Callable[[int], None] = lambda answered: None
        """Called after each good reply with the number of duels answered so far."""
        self.url = ""
        self.answered: Counter[str] = Counter()
        """How often each duel was answered, in a reply that was sent whole and right."""
        self.injected: Counter[str] = Counter()
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        """Method, path, headers and body of all requests, in the order of their coming."""
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self._seen: Counter[bytes] = Counter()

    def fault_for(self, body: bytes) -> str | None:
        """Drawn from the seed, the question, and how often it was asked: the same whatever the threads do."""
        with self.lock:
            self._seen[body] += 1
            draw = hashlib.sha256(b"%d %d " % (self.seed, self._seen[body]) + body).digest()
            if int.from_bytes(draw[:4], "big") >= self.rate * 2**32:
                return None
            fault = self.faults[draw[4] % len(self.faults)]
            self.injected[fault] += 1
            return fault


@contextmanager
def faulty_service(
    rate: float = 0.0, seed: int = 0, faults: Sequence[str] = FAULTS, hold: float = 3.0
) -> Iterator[FaultyService]:
    """Serve on a free port. `rate`: share of requests that go wrong; `hold`: seconds of silent and slow replies."""
    with served(FaultyService(rate, seed, faults, hold), _Handler) as service:
        yield service


@contextmanager
def served(service, handler, path: str = ""):
    """Serve what `handler` replies for the service, whose address ends in `path`."""
    server = _Server(("127.0.0.1", 0), type("Handler", (handler,), {"service": service}))
    service.url = f"http://127.0.0.1:{server.server_port}{path}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Clients that hang up are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    service: FaultyService

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._answer(b"")

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers["content-length"])))

    def _answer(self, body: bytes):
        service = self.service
        with service.lock:
            service.requests.append((self.command, self.path, dict(self.headers), body))
        if service.down():
            self._hang_up()
        elif service.always:
            self._reply(*service.always)
        elif service.token and self.headers.get("authorization") != f"Bearer {service.token}":
            self._reply(401, {}, b"no such token: " + self.headers.get("authorization", "none").encode())
        elif self.path == "/v1/identity":
            self._reply(200, {}, json.dumps({"identity": service.identity}).encode())
        elif self.path in ("/v1/compare", "/get_feedback"):
            self._answer_duels(body)
        else:
            self._reply(404, {}, b"nothing here")

    def _answer_duels(self, body: bytes):
        questions = _questions(self.path, body)
        if any(self.service.poisoned(question[0]) for question in questions):
            return self._reply(500, {}, b"poison")
        probabilities = [right_answer(*question) for question in questions]
        good = _good_reply(self.path, self.service.identity, probabilities)
        if fault := self.service.fault_for(body):
            return getattr(self, f"_{fault}")(good, probabilities)
        # Counted before it is sent, so that whoever has the answer finds it counted.
        with self.service.lock:
            self.service.answered.update(duel_id(*question) for question in questions)
        self._reply(200, {}, good)
        self.service.after_answers(self.service.answered.total())

    def _reply(self, status: int, headers: dict[str, str], body: bytes):
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _hang_up(self):
        """Reset the connection: what a crashed pod looks like."""
        self.connection.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
        self.close_connection = True

    # Faults. None of them is an answer.

    def _error(self, good, probabilities):
        self._reply(500, {}, b"out of memory")

    def _busy(self, good, probabilities):
        self._reply(503, {"retry-after": "1"}, b"")

    def _silent(self, good, probabilities):
        self.service.stopping.wait(self.service.hold)
        self.close_connection = True

    def _dropped(self, good, probabilities):
        self._hang_up()

    def _slow(self, good, probabilities):
        """Bytes trickle in faster than any timeout between two of them; the last never comes."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(good))
        end = time.monotonic() + self.service.hold
        for byte in good[:-1]:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if time.monotonic() > end or self.service.stopping.wait(0.05):
                break
        self.close_connection = True

    def _truncated(self, good, probabilities):
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(good) + good[: len(good) // 2])
        self.close_connection = True

    def _malformed(self, good, probabilities):
        self._reply(200, {}, good[: len(good) // 2])

    def _miscounted(self, good, probabilities):
        self._reply(200, {}, _good_reply(self.path, self.service.identity, probabilities[:-1]))


def _questions(path: str, body: bytes) -> list[tuple[str, str, str]]:
    if path == "/get_feedback":
        asked = msgpack.unpackb(body)
        pairs = zip(asked["batch_prompt"], asked["batch_candidates"], strict=True)
        return [(prompt, first, second) for prompt, (first, second) in pairs]
    return [(duel["prompt"], duel["first"], duel["second"]) for duel in json.loads(body)["duels"]]


def _good_reply(path: str, identity: str, probabilities: list[float]) -> bytes:
    if path == "/get_feedback":
        return msgpack.packb({"batch_first_win_prob": probabilities, "batch_score": []})
    answers = [{"first_wins": one, "first_reward": one, "second_reward": -one} for one in probabilities]
    return json.dumps({"identity": identity, "answers": answers}).encode()
