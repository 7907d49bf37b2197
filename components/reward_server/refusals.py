"""Refused requests: each gets a status and a sentence, and is counted."""

from __future__ import annotations

import hmac
import logging
import traceback
from collections.abc import Callable, Container

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware


class Refused(Exception):
    """A request is refused, with a status, a message and optionally the seconds until the client may try again."""

    def __init__(self, status: int, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.retry_after = status, retry_after

    def to_response(self) -> web.Response:
        """Return the answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return web.json_response({"error": str(self)}, status=self.status, headers=headers)


def answer_always(count: Callable[[str, int], None]) -> Middleware:
    """Return a middleware that turns every error into an answer, and counts path and status."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await _answer_errors(request, handler)
        count(request.path, response.status)
        return response

    return middleware


async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as error:
        return error.to_response()
    except web.HTTPException as error:
        return Refused(error.status, error.reason).to_response()
    except Exception:
        # The client gets no details: they may contain the texts of other clients.
        traceback.print_exc()
        return Refused(500, "the server failed; its log says how").to_response()


def require_token(token: str | None, open_paths: Container[str]) -> Middleware:
    """Return a middleware that refuses requests without the token, except to the open paths; no token, no check."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token is not None and request.path not in open_paths:
            given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
            if not hmac.compare_digest(given, f"Bearer {token}".encode()):
                raise Refused(401, "the token is missing or wrong; send it as Authorization: Bearer TOKEN")
        return await handler(request)

    return middleware


def make_quiet_log() -> logging.Logger:
    """Return a log that drops requests that are not HTTP: they could contain anything, and fill the disk."""
    log = logging.getLogger(__name__)
    log.filters = [lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))]
    return log
