"""A reward service over HTTP as the oracle: ours, or one that speaks Oat's protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlsplit

from ..errors import RefusedInput, SettingsError
from ..records.records import Duel
from . import web, wire
from .bearer import TOKEN, read_bearer_secret
from .concurrent import ask_all
from .oracle import Answer, Circumstances, OracleFailed
from .patience import Breaker, Clock, GaveUp, Pauses, TryAgain
from .settings import RemoteSettings

_TRIES_OF_A_CHECK = 3
# Not answers, and gone with time: everything else below 500 stays as it is, however often it is asked.
_MAY_PASS = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}

T = TypeVar("T")


class RemoteOracle:
    """Asks a service, several requests at a time, until each is answered or the service was down for too long.

    Failures that may pass are tried again: no connection, timeouts, 5xx, 429, replies that are broken or break the
    protocol. Others (a refused token, a request that is too large, a redirect) fail at once. The constructor does not
    contact the service.
    """

    known_reward = None
    paid = True
    spending = None

    def __init__(
        self, settings: RemoteSettings, circumstances: Circumstances | None = None, clock: Clock | None = None
    ):
        self._url = web.check_url("remote_url", settings.remote_url, settings.remote_allowed_hosts)
        self._settings = settings
        say = (circumstances or Circumstances()).say
        self._clock = clock or Clock()
        self._pauses = Pauses(settings.remote_backoff)
        self._who = f"The reward service {self._url}"
        self._breaker = Breaker(
            self._who, settings.remote_tries, settings.remote_patience, say, self._pauses, self._clock
        )
        self._token = read_bearer_secret(TOKEN)
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        self._client = web.open_capped_client(settings.remote_timeout, settings.remote_concurrency, headers=headers)
        self._lock = threading.Lock()
        self._named: str | None = None

    @property
    def identity(self) -> str:
        """``remote/`` and what the service names itself, asked once; of Oat's services, which cannot say, the host."""
        if self._settings.remote_protocol == "oat":
            return f"remote/oat/{urlsplit(self._url).hostname}"
        if self._named is None:
            self._note_identity(self._ask_patiently(self._ask_identity)[0])
        return f"remote/{self._named}"

    def check_ready(self) -> None:
        """Contact the service once, without a question that costs something; `RefusedInput` by name if that fails."""
        attempt = self._ask_identity if self._settings.remote_protocol == "json" else self._reach_host
        refused = f"remote_url={self._url!r}: "
        for number in range(1, _TRIES_OF_A_CHECK + 1):
            try:
                attempt()
                return
            except (OracleFailed, web.ForbiddenAddress) as error:
                raise RefusedInput(f"{refused}{error}") from None
            except TryAgain as error:
                failure = error
                if number < _TRIES_OF_A_CHECK:
                    self._clock.sleep(self._pauses.after(number, error.wish))
        raise RefusedInput(
            f"{refused}no reward service answers there ({failure}); start it (oatflow serve-reward-model), or check "
            "the address and remote_protocol"
        )

    def compare_duels(self, duels: Sequence[Duel]) -> list[Answer]:
        """Answer each duel; `OracleFailed` with those that were answered if the service refuses or stays down."""
        distinct = list({duel.duel_id: duel for duel in duels}.values())
        size = self._settings.remote_request_duels
        chunks = [distinct[start : start + size] for start in range(0, len(distinct), size)]
        answers = ask_all(chunks, self._ask_duels, self._settings.remote_concurrency)
        return [answers[duel.duel_id] for duel in duels]

    def _ask_duels(self, duels: Sequence[Duel]) -> dict[str, Answer]:
        """Ask about the duels of one request; the request is counted at the first of them."""
        began = self._clock.monotonic()
        answers, retried = self._ask_patiently(partial(self._ask_once, duels))
        seconds = self._clock.monotonic() - began
        return {
            duel.duel_id: _count_requests(answers[duel.duel_id], seconds, *((1, retried) if number == 0 else (0, 0)))
            for number, duel in enumerate(duels)
        }

    def _ask_once(self, duels: Sequence[Duel]) -> dict[str, Answer]:
        if self._settings.remote_protocol == "oat":
            body = self._exchange_bytes("POST", wire.OAT, wire.write_oat_request(duels), wire.OAT_TYPE)
            return _read_reply(partial(wire.read_oat_answers, body, duels))
        body = self._exchange_bytes("POST", wire.COMPARE, wire.write_json_request(duels), wire.JSON_TYPE)
        identity, answers = _read_reply(partial(wire.read_json_answers, body, duels))
        self._note_identity(identity)
        return answers

    def _ask_identity(self) -> str:
        body = self._exchange_bytes("GET", wire.IDENTITY)
        return _read_reply(partial(wire.read_json_identity, body))

    def _reach_host(self) -> None:
        """Accept any reply: Oat's protocol has no question that is free."""
        try:
            status = self._client.get(self._url + "/").status_code
        except web.NoReply as error:
            raise TryAgain(_name_error(error)) from error
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise OracleFailed(self._explain_token(status))

    def _ask_patiently(self, attempt: Callable[[], T]) -> tuple[T, int]:
        try:
            return self._breaker.ask(attempt)
        except GaveUp as error:
            raise OracleFailed(
                f"{error}. What it answered before is kept, and is not asked again. See to the service, then run the "
                f"same again; remote_patience is {self._settings.remote_patience:g} s."
            ) from None
        except SettingsError as error:
            # The host's name resolves to a forbidden address by now.
            raise OracleFailed(f"{self._who}: {error}") from error

    def _exchange_bytes(self, method: str, path: str, body: bytes | None = None, kind: str | None = None) -> bytes:
        """Return the body of a good reply. Raises `TryAgain` for a failure that may pass, else `OracleFailed`."""
        try:
            reply = self._client.request(
                method, self._url + path, content=body, headers={"content-type": kind} if kind else {}
            )
        except web.NoReply as error:
            raise TryAgain(_name_error(error)) from error
        status = reply.status_code
        if status == HTTPStatus.OK:
            return reply.content
        if status in _MAY_PASS or status >= 500 or status < 300:
            raise TryAgain(_name_status(status), web.read_retry_after(reply.headers))
        raise OracleFailed(self._explain_refusal(status, path, reply.headers.get("location", ""), reply.content))

    def _explain_refusal(self, status: int, path: str, target: str, body: bytes) -> str:
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return self._explain_token(status)
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            size = self._settings.remote_request_duels
            return f"{self._who}: request too large (413). Lower remote_request_duels (now {size})."
        if status < 400:
            return (
                f"{self._who} redirects to {web.redact_url(target)!r} ({_name_status(status)}), which is not "
                "followed. Set remote_url to that address, if you trust it."
            )
        hint = f" Is there another service? remote_protocol is {self._settings.remote_protocol!r}."
        return (
            f"{self._who}{path} refuses the question: {_name_status(status)}{self._quote_body(body)}."
            f"{hint if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED) else ''}"
        )

    def _explain_token(self, status: int) -> str:
        given = f"refuses the token in {TOKEN}" if self._token else f"wants a token, and {TOKEN} is not set"
        return (
            f"{self._who} {given} ({_name_status(status)}). Set {TOKEN} to the token that the service was started "
            "with; in a cluster, in the secret that the steps get their environment from."
        )

    def _quote_body(self, body: bytes) -> str:
        """Return the service's words about its refusal, without the token."""
        said = "".join(letter for letter in body.decode(errors="replace") if letter.isprintable()).strip()
        said = said.replace(self._token, "***") if self._token else said
        return f", {said[:200]!r}" if said else ""

    def _note_identity(self, named: str) -> None:
        with self._lock:
            known = self._named = self._named or named
        if known != named:
            raise OracleFailed(
                f"{self._who} was {known}, and is {named} by now: another model was deployed. Its answers were dropped,"
                " those of the first are kept. Deploy the first one again and run the same again, or begin another "
                "experiment."
            )


def _read_reply(read: Callable[[], T]) -> T:
    try:
        return read()
    except wire.WireError as error:
        raise TryAgain(f"its reply is not as agreed: {error}") from error


def _name_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _name_status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _count_requests(answer: Answer, seconds: float, requests: int, retried: int) -> Answer:
    return replace(answer, requests=requests, retried=retried, seconds=seconds)
