"""The HTTP server in front of Mosec: both protocols, the token, the limits, health checks and metrics.

Mosec lacks these: it has no token, counts only requests that reach the model, and fails a whole batch for one malformed
request. So requests are parsed here, and only valid ones are passed on.
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
from .envelope import Conversation
from .metrics import CONTENT_TYPE, Metrics
from .mosec_process import MosecProcess, Overloaded, TooSlow
from .refusals import Refused, answer_always, make_quiet_log, require_token
from .settings import ServerSettings

HEALTH, READY, METRICS = "/health", "/ready", "/metrics"
OPEN = frozenset((HEALTH, READY, METRICS))
_PATHS = OPEN | {wire.COMPARE, wire.IDENTITY, wire.OAT}
_SOON, _LATER = 1, 5
# Seconds for which the rest of a refused request is read, so that its client receives the refusal.
_LINGER = 2.0
# Seconds that an idle connection stays open.
_IDLE = 60.0

Answer = Callable[[bytes], Awaitable[web.Response]]
Asked = TypeVar("Asked")


@dataclass
class Gateway:
    """One service: the model, its limits, and the token that clients must send. Without a `token`, no check is made."""

    mosec: MosecProcess
    settings: ServerSettings
    temperature: float
    token: str | None
    metrics: Metrics = field(default_factory=Metrics)

    def make_runner(self) -> web.AppRunner:
        """Return the aiohttp runner. Its cleanup still answers the requests in progress."""
        count = partial(self.metrics.count_request, _PATHS)
        middlewares = [answer_always(count), require_token(self.token, OPEN)]
        application = web.Application(client_max_size=self.settings.max_body, middlewares=middlewares)
        application.add_routes(
            [
                web.post(wire.COMPARE, partial(self._admit_request, self._answer_compare)),
                web.get(wire.IDENTITY, self._answer_identity),
                web.post(wire.OAT, partial(self._admit_request, self._answer_oat)),
                web.get(HEALTH, self._answer_health),
                web.get(READY, self._answer_ready),
                web.get(METRICS, self._answer_metrics),
            ]
        )
        return web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=_IDLE,
            shutdown_timeout=self.settings.timeout,
            lingering_time=_LINGER,
            auto_decompress=False,
            logger=make_quiet_log(),
        )

    def require_identity(self) -> str:
        """Return the name of the oracle with this model and temperature. Raises `Refused` until the model is loaded."""
        if self.mosec.identity is None:
            raise Refused(503, "the model is being loaded; ask again", _LATER)
        return f"reward_model/{self.mosec.identity}/T={self.temperature:g}"

    # --- Endpoints ---

    async def _answer_compare(self, body: bytes) -> web.Response:
        rewards = await self._both_rewards(_parse_body(wire.read_json_request, body))
        answers = [wire.WireAnswer(self._first_wins(pair), *pair) for pair in rewards]
        return _ok_response(wire.write_json_answers(self.require_identity(), answers), wire.JSON_TYPE)

    async def _answer_oat(self, body: bytes) -> web.Response:
        asked = _parse_body(wire.read_oat_request, body)
        probabilities = [self._first_wins(pair) for pair in await self._both_rewards(asked.duels)]
        scores = await self._score_conversations(asked.responses, len(asked.responses))
        return _ok_response(wire.write_oat_answers(probabilities, scores), wire.OAT_TYPE)

    async def _answer_identity(self, request: web.Request) -> web.Response:
        return _ok_response(wire.write_json_identity(self.require_identity()), wire.JSON_TYPE)

    async def _answer_health(self, request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _answer_ready(self, request: web.Request) -> web.Response:
        if not await self.mosec.is_ready():
            raise Refused(503, "the model is being loaded, or about to end", _LATER)
        return web.json_response({"ready": True})

    async def _answer_metrics(self, request: web.Request) -> web.Response:
        text = self.metrics.write_text(self.mosec.identity is not None) + (await self.mosec.read_metrics() or "# EOF\n")
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    # --- Limits and scoring ---

    async def _admit_request(self, answer: Answer, request: web.Request) -> web.Response:
        """Answer a request that is within the limits."""
        self._check_limits(request)
        self.metrics.under_way += 1
        try:
            return await answer(await self._read_body(request))
        finally:
            self.metrics.under_way -= 1

    def _check_limits(self, request: web.Request) -> None:
        self.require_identity()
        if "Content-Encoding" in request.headers:
            raise Refused(415, "send the body as it is: one that is small while compressed may be large")
        if (request.content_length or 0) > self.settings.max_body:
            raise self._too_large()
        if self.metrics.under_way >= self.settings.max_waiting:
            raise Refused(429, "too many requests are under way; ask again", _SOON)

    async def _read_body(self, request: web.Request) -> bytes:
        """Read the body, and no more than `max_body` bytes even if its length is not declared."""
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

    async def _both_rewards(self, questions: Sequence[wire.WireDuel]) -> list[tuple[float, float]]:
        texts = [(asked.prompt, response) for asked in questions for response in (asked.first, asked.second)]
        scores = await self._score_conversations(texts, len(questions))
        return list(zip(scores[::2], scores[1::2], strict=True))

    def _first_wins(self, rewards: tuple[float, float]) -> float:
        return win_probability(*rewards, self.temperature)

    async def _score_conversations(self, conversations: Sequence[Conversation], asked: int) -> list[float]:
        if asked > self.settings.max_duels:
            raise Refused(
                422, f"{asked} in one request, {self.settings.max_duels} may be (max_duels); ask less at a time"
            )
        if not conversations:
            return []
        began = time.monotonic()
        try:
            scores = await self.mosec.score_conversations(conversations)
        except Overloaded as error:
            raise Refused(503, str(error), _SOON) from error
        except TooSlow as error:
            raise Refused(504, f"{error} ({self.settings.timeout:g} s); ask less at a time") from error
        if not all(map(isfinite, scores)):
            raise Refused(500, "the model gives one of these answers no finite score; try the other scorer_dtype")
        self.metrics.count_scored(len(conversations), time.monotonic() - began)
        return scores


def _parse_body(read: Callable[[bytes], Asked], body: bytes) -> Asked:
    try:
        return read(body)
    except wire.WireError as error:
        raise Refused(422, str(error)) from None


def _ok_response(body: bytes, kind: str) -> web.Response:
    return web.Response(body=body, content_type=kind)
