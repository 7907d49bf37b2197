"""How a request to a store is repeated while its server is away. Requests are tried again here and nowhere else.

A person at a terminal gets an error after TRIES tries, or after two that hang. A step waits for as many seconds as its
run chose (`store_patience_seconds`), and its log says when the trouble begins, each minute, and when it is over.
"""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util.ssl_match_hostname import CertificateError

from .. import progress
from ..errors import OatflowError
from . import connections

TRIES = 5

_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0
_REMINDER_SECONDS = 60.0
# One request that failed and whose second try succeeds is not worth a line.
_QUIET_SECONDS = 5.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a request failed, where another try may succeed.

    `in_doubt`: the server may have carried the request out all the same. `brief`: it either passes within a few tries
    or not at all, so it is not worth a longer wait.
    """

    cause: str
    in_doubt: bool = True
    brief: bool = False


class OutOfPatience(Exception):
    """A request was repeated for as long as allowed. `seconds`: how long that was, 0 for a few tries."""

    def __init__(self, cause: str, seconds: float):
        super().__init__(cause)
        self.seconds = seconds


class Outage:
    """What the threads of this process know of a server: since when it is away, and whether it was ever reached.

    `was_reached`: its name was resolved at least once.
    """

    def __init__(self, server: str):
        self.server, self.was_reached = server, False
        self._lock = threading.Lock()
        self._since: float | None = None
        self._said_at = float("-inf")
        self._is_known = False
        self._given_up_at = float("-inf")

    def note_failure(self, cause: str, tries: int, seconds_tried: float, patience: float) -> float:
        """Note a failed try, and say so in the log when it is due; returns since when the server is away."""
        now = time.monotonic()
        with self._lock:
            self._since = now if self._since is None else self._since
            if (tries > 1 or seconds_tried > _QUIET_SECONDS) and now >= self._said_at + _REMINDER_SECONDS:
                still = (
                    f"has not answered for {progress.format_duration(now - self._since)}"
                    if self._is_known
                    else "does not answer"
                )
                limit = progress.format_duration(patience)
                progress.report_note(f"the store {self.server} {still} ({cause}); trying again for up to {limit}")
                self._said_at, self._is_known = now, True
            return self._since

    def note_answer(self) -> None:
        """Note that the server answers."""
        self.was_reached = True
        if self._since is None:
            return
        with self._lock:
            if self._is_known and self._since is not None:
                away = progress.format_duration(time.monotonic() - self._since)
                progress.report_note(f"the store {self.server} answers again, after {away}")
            self._since, self._is_known = None, False

    def note_end(self) -> None:
        """Note that a request was given up."""
        self._given_up_at = time.monotonic()

    @property
    def is_given_up(self) -> bool:
        """Whether a request was given up a moment ago: those behind it in a queue need not wait in turn."""
        return self._since is not None and time.monotonic() < self._given_up_at + _REMINDER_SECONDS


class Patience:
    """Repeats requests to one server. `seconds`: for how long, or 0 for TRIES tries.

    `before_retry` is called before each new try, and may end the waiting by raising.
    """

    def __init__(self, outage: Outage, seconds: float = 0.0, before_retry: Callable[[], object] | None = None):
        self._outage, self.seconds, self._before_retry = outage, seconds, before_retry

    def lasting(self, seconds: float, before_retry: Callable[[], object] | None) -> Patience:
        """Return another patience with the same server."""
        return Patience(self._outage, seconds, before_retry)

    def repeat(
        self,
        act: Callable[[], Result],
        trouble_of: Callable[[Exception, bool], Trouble | None],
        got_further: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Return the result of `act`, which is repeated while `trouble_of` calls its error a trouble.

        `trouble_of` gets the error, and whether the server was ever reached. `got_further`: whether a try that failed
        brought more than all before it, so that the time away counts from its failure on. Raises `OutOfPatience`, or
        the first error that is no trouble; then its cause is the last try that may have been carried out
        (`was_in_doubt`).
        """
        if self.seconds and self._outage.is_given_up:
            raise OutOfPatience("it was away for too long a moment ago", self.seconds)
        first_failure, brief_tries, hangs, doubt = 0.0, 0, 0, None
        for tries in count(1):
            started = time.monotonic()
            try:
                result = act()
            except Exception as error:
                trouble = trouble_of(error, self._outage.was_reached)
                if trouble is None or trouble.brief:
                    self._note_reached(error)
                brief_tries += trouble is not None and trouble.brief
                if trouble is None or (trouble.brief and brief_tries >= TRIES):
                    if doubt is not None:
                        raise error from doubt
                    raise
                if not isinstance(error, NameResolutionError):
                    # A server that refuses connections, too, was found by its name.
                    self._outage.was_reached = True
                doubt = error if trouble.in_doubt else doubt
                now = time.monotonic()
                first_failure = now if got_further() else first_failure or now
                away = 0.0 if trouble.brief else now - min(first_failure, self._note_trouble(trouble, tries, started))
                hangs += isinstance(error, ReadTimeoutError)
                if self._is_over(tries, hangs, away):
                    raise OutOfPatience(trouble.cause, self.seconds) from error
                self._pause(tries, away)
                if self._before_retry is not None:
                    self._before_retry()
            else:
                self._outage.note_answer()
                return result
        raise AssertionError("unreachable")

    def _note_reached(self, error: Exception) -> None:
        # Our own errors come from `before_retry`, which may itself have given up.
        if not isinstance(error, (HTTPError, OutOfPatience, OatflowError)):
            self._outage.note_answer()

    def _note_trouble(self, trouble: Trouble, tries: int, started: float) -> float:
        if not self.seconds:
            return time.monotonic()
        return self._outage.note_failure(trouble.cause, tries, time.monotonic() - started, self.seconds)

    def _is_over(self, tries: int, hangs: int, away: float) -> bool:
        if not self.seconds:
            # Each of them took ANSWER_SECONDS.
            return tries >= TRIES or hangs > 1
        if away >= self.seconds:
            self._outage.note_end()
        return away >= self.seconds

    def _pause(self, tries: int, away: float) -> None:
        seconds = pause_seconds(tries)
        if self.seconds:
            # The last try is made when the time is up.
            seconds = min(seconds, max(self.seconds - away, _PAUSE_SECONDS))
        time.sleep(seconds)


def pause_seconds(tries: int) -> float:
    """Return how long to wait after `tries` failures in a row: 0, 1, 2, 4, 8, then 10 s, and some jitter."""
    longest = min(_LONGEST_PAUSE_SECONDS, _PAUSE_SECONDS * 2 ** min(tries - 1, 20)) if tries > 1 else 0.0
    return longest + random.random() * max(_PAUSE_SECONDS, longest / 4)


def was_in_doubt(error: BaseException) -> bool:
    """Whether an earlier try of the request that ended in `error` may have been carried out, its answer lost."""
    return error.__cause__ is not None


def connection_trouble(error: HTTPError, was_reached: bool) -> Trouble | None:
    """Return why a connection failed, or None where it would fail again: a bad certificate, a name that is none."""
    if isinstance(error, NameResolutionError):
        if was_reached:
            return Trouble(unresolved(error), in_doubt=False)
        # The name server may be slow for a new pod; a name that does not exist will not appear.
        passes = isinstance(error.__cause__, socket.gaierror) and error.__cause__.errno == socket.EAI_AGAIN
        return Trouble(unresolved(error), in_doubt=False, brief=True) if passes else None
    if is_untrusted(error) or isinstance(error, LocationValueError):
        return None
    never_sent = isinstance(error, (NewConnectionError, ConnectTimeoutError, ClosedPoolError))
    return Trouble(_cause_of(error), in_doubt=not never_sent)


def unresolved(error: NameResolutionError) -> str:
    """Say which name was not resolved, without the connection that asked for it."""
    return f"{error}".partition(": ")[2]


def _cause_of(error: HTTPError) -> str:
    """Say in a few words why a connection failed."""
    if isinstance(error, NewConnectionError) and isinstance(error.__cause__, OSError) and error.__cause__.strerror:
        return error.__cause__.strerror.lower()
    if isinstance(error, ConnectTimeoutError):
        return f"no connection within {connections.CONNECT_SECONDS:g} s"
    if isinstance(error, ProtocolError) and isinstance(error.args[-1], OSError) and error.args[-1].strerror:
        return error.args[-1].strerror.lower()
    if isinstance(error, ReadTimeoutError):
        return f"no answer within {connections.ANSWER_SECONDS:g} s"
    return f"{error}"


def is_untrusted(error: HTTPError) -> bool:
    """Whether TLS failed for a reason that stays: a certificate that is not trusted, or a server without TLS.

    So does a file of authorities that is not there, or has none.
    """
    reason = error.args[0] if isinstance(error, SSLError) and error.args else None
    if isinstance(reason, (CertificateError, ssl.SSLCertVerificationError, FileNotFoundError, PermissionError)):
        return True
    stays = ("WRONG_VERSION_NUMBER", "NO_CERTIFICATE_OR_CRL_FOUND", "PEM_LIB")
    return isinstance(reason, ssl.SSLError) and reason.reason in stays
