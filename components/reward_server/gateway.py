"""What clients speak to: both protocols, the token, the limits, and what Kubernetes and Prometheus ask.

Mosec alone lacks these: it knows no token, counts only what reaches the model, and fails a whole batch for one request
that cannot be read. So requests are read here, and only good ones go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from typing import TypeVar

from aiohttp import web

from ..oracles import wire
from ..oracles.bradley_terry import win_probability
from .batcher import Batcher, Overloaded, TooSlow
from .envelope import Conversation
from .metrics import CONTENT_TYPE, Metrics
from .refusals import Refused, answered, quiet_log, refuse_strangers
from .settings import ServerSettings

HEALTH, READY, METRICS = "/health", "/ready", "/metrics"
OPEN = frozenset((HEALTH, READY, METRICS))
_PATHS = OPEN | {wire.COMPARE, wire.IDENTITY, wire.OAT}
_SOON, _LATER = 1, 5
# What a client that is refused may still be sending is read for so long, so that it hears why.
_LINGER = 2.0
# Seconds that a connection may be open and say nothing.
_IDLE = 60.0

Answer = Callable[[bytes], Awaitable[web.Response]]
Asked = TypeVar("Asked")


@dataclass
class Gateway:
    """One service: the model, what it may be asked, and who may ask. Without a `token`, everybody may."""

    batcher: Batcher
    settings: ServerSettings
    temperature: float
    token: str | None
    metrics: Metrics = field(default_factory=Metrics)

    def runner(self) -> web.AppRunner:
        """Return what serves it. When it is cleaned up, requests under way are still answered."""
        count = partial(self.metrics.note, _PATHS)
        middlewares = [answered(count), refuse_strangers(self.token, OPEN)]
        application = web.Application(client_max_size=self.settings.max_body, middlewares=middlewares)
        application.add_routes(
            [
                web.post(wire.COMPARE, partial(self._admitted, self._compare)),
                web.get(wire.IDENTITY, self._identity),
                web.post(wire.OAT, partial(self._admitted, self._oat)),
                web.get(HEALTH, self._health),
                web.get(READY, self._ready),
                web.get(METRICS, self._metrics),
            ]
        )
        return web.AppRunner(
            application, access_log=None, keepalive_timeout=_IDLE, shutdown_timeout=self.settings.timeout,
            lingering_time=_LINGER, auto_decompress=False, logger=quiet_log(),
        )  # fmt: skip

    def identity(self) -> str:
        """Return the name that an oracle of this model and temperature has. Raises `Refused` until it is loaded."""
        if self.batcher.identity is None:
            raise Refused(503, "the model is being loaded; ask again", _LATER)
        return f"reward_model/{self.batcher.identity}/T={self.temperature:g}"

    # --- What is asked ---

    async def _compare(self, body: bytes) -> web.Response:
        rewards = await self._both_rewards(_read(wire.read_json_request, body))
        answers = [wire.Comparison(self._first_wins(pair), *pair) for pair in rewards]
        return _good(wire.write_json_answers(self.identity(), answers), wire.JSON_TYPE)

    async def _oat(self, body: bytes) -> web.Response:
        asked = _read(wire.read_oat_request, body)
        probabilities = [self._first_wins(pair) for pair in await self._both_rewards(asked.duels)]
        scores = await self._scores(asked.responses, len(asked.responses))
        return _good(wire.write_oat_answers(probabilities, scores), wire.OAT_TYPE)

    async def _identity(self, request: web.Request) -> web.Response:
        return _good(wire.write_json_identity(self.identity()), wire.JSON_TYPE)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _ready(self, request: web.Request) -> web.Response:
        if not await self.batcher.is_ready():
            raise Refused(503, "the model is being loaded, or about to end", _LATER)
        return web.json_response({"ready": True})

    async def _metrics(self, request: web.Request) -> web.Response:
        text = self.metrics.text(self.batcher.identity is not None) + (await self.batcher.metrics() or "# EOF\n")
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    # --- How it is answered ---

    async def _admitted(self, answer: Answer, request: web.Request) -> web.Response:
        """Answer a question if there is room for it, in every sense."""
        self._check_room(request)
        self.metrics.under_way += 1
        try:
            return await answer(await self._body(request))
        finally:
            self.metrics.under_way -= 1

    def _check_room(self, request: web.Request) -> None:
        self.identity()
        if "Content-Encoding" in request.headers:
            raise Refused(415, "send the body as it is: one that is small while compressed may be large")
        if (request.content_length or 0) > self.settings.max_body:
            raise self._too_large()
        if self.metrics.under_way >= self.settings.max_waiting:
            raise Refused(429, "too many requests are under way; ask again", _SOON)

    async def _body(self, request: web.Request) -> bytes:
        """Read the body; one without a declared length, too, no further than the limit."""
        try:
            async with asyncio.timeout(self.settings.timeout):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise self._too_large() from None
        except ConnectionError:
            raise Refused(400, "the request broke off") from None
        except TimeoutError:
            raise Refused(408, f"the request did not arrive within {self.settings.timeout:g} s") from None

    def _too_large(self) -> Refused:
        return Refused(413, f"the request is larger than {self.settings.max_body} bytes (max_body); ask less at a time")

    async def _both_rewards(self, questions: Sequence[wire.Question]) -> list[tuple[float, float]]:
        texts = [(asked.prompt, response) for asked in questions for response in (asked.first, asked.second)]
        scores = await self._scores(texts, len(questions))
        return list(zip(scores[::2], scores[1::2], strict=True))

    def _first_wins(self, rewards: tuple[float, float]) -> float:
        return win_probability(*rewards, self.temperature)

    async def _scores(self, conversations: Sequence[Conversation], asked: int) -> list[float]:
        if asked > self.settings.max_duels:
            raise Refused(
                422, f"{asked} in one request, {self.settings.max_duels} may be (max_duels); ask less at a time"
            )
        if not conversations:
            return []
        began = time.monotonic()
        try:
            scores = await self.batcher.scores(conversations)
        except Overloaded as error:
            raise Refused(503, str(error), _SOON) from error
        except TooSlow as error:
            raise Refused(504, f"{error} ({self.settings.timeout:g} s); ask less at a time") from error
        if not all(map(isfinite, scores)):
            raise Refused(500, "the model gives one of these answers no finite score; try the other scorer_dtype")
        self.metrics.note_scored(len(conversations), time.monotonic() - began)
        return scores


def _read(read: Callable[[bytes], Asked], body: bytes) -> Asked:
    try:
        return read(body)
    except wire.WireError as error:
        raise Refused(422, str(error)) from None


def _good(body: bytes, kind: str) -> web.Response:
    return web.Response(body=body, content_type=kind)
