"""Patience with a service: pauses between tries, and a circuit breaker. Every wait has a bound."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeVar

from ..progress import format_duration
from .oracle import Say

T = TypeVar("T")

LONGEST_PAUSE = 30.0
LONGEST_WISH = 60.0
"""A service that asks for a longer pause (Retry-After) is asked again after this one all the same."""


class TryAgain(Exception):
    """A try failed in a way that may pass.

    Attributes:
        wish: Seconds after which the service wants to be asked again.
        may_be_paid: Whether the service may bill it: it may have answered, though no answer arrived.
    """

    def __init__(self, reason: str, wish: float | None = None, may_be_paid: bool = False):
        super().__init__(reason)
        self.wish, self.may_be_paid = wish, may_be_paid


class GaveUp(Exception):
    """The service was down for longer than the patience; the message says since when, and how it failed last."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, and how it passes: tests hand in another one."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Pauses:
    """Pauses between tries.

    jitter: 0.5 s, doubling up to 30 s, each shortened by up to half at random, so that those who failed together do
    not come back together. oat: Oat's, 1, 1.3, 1.69 s and so on, up to 30 s.
    """

    kind: Literal["jitter", "oat"] = "jitter"
    chance: random.Random = field(default_factory=random.Random)

    def after(self, failures: int, wish: float | None = None) -> float:
        """Return the pause after so many failures in a row (from 1), not shorter than the service wishes."""
        if self.kind == "oat":
            pause = min(1.3 ** min(failures - 1, 99), LONGEST_PAUSE)
        else:
            pause = min(0.5 * 2.0 ** min(failures - 1, 99), LONGEST_PAUSE) * self.chance.uniform(0.5, 1)
        return max(pause, min(wish or 0.0, LONGEST_WISH))


class Breaker:
    """A circuit breaker, shared by all threads that ask one service.

    A question that fails `tries` times in a row opens it: the service is down. Then one thread probes, and the others
    wait. After each failed probe and its pause, another thread probes, so that one question that always fails does not
    block the others. The first answer closes the breaker, and all threads go on. After `patience` seconds without an
    answer, all of them give up.

    Args:
        who: The service, as messages begin.
        tries: Failures in a row that open the breaker.
        patience: Seconds that the service may be down.
        say: Shows a line to the user when the breaker opens, and when it closes.
        pauses: The pauses between tries.
        clock: Time, and how it passes.
    """

    def __init__(
        self,
        who: str,
        tries: int,
        patience: float,
        say: Say,
        pauses: Pauses | None = None,
        clock: Clock | None = None,
    ):
        self._who, self._tries, self._patience, self._say = who, tries, patience, say
        self._pauses, self._clock = pauses or Pauses(), clock or Clock()
        self._changed = threading.Condition()
        self._down_since: float | None = None
        self._prober: object | None = None
        self._last_prober: object | None = None
        self._waiting = self._failures_in_a_row = 0
        self._last_failure = ""
        # How often it gave up, and its last words: those who asked before that give up too, those who ask later do not.
        self._given_up, self._last_words = 0, ""

    def ask(self, attempt: Callable[[], T]) -> tuple[T, int]:
        """Call `attempt` until it answers; returns the answer, and how many tries failed before.

        A try fails if it raises `TryAgain`; everything else that it raises passes through. Raises `GaveUp`.
        """
        me, given_up = object(), self._given_up
        failed = in_a_row = 0
        while True:
            in_a_row = 0 if self._wait_for_turn(me, given_up) else in_a_row
            try:
                answer = attempt()
                self._close()
                return answer, failed
            except TryAgain as failure:
                failed, in_a_row = failed + 1, in_a_row + 1
                failures = self._note_failure(me, in_a_row, str(failure))
                self._clock.sleep(self._pauses.after(failures, failure.wish))
            finally:
                self._let_another_probe(me)

    def _wait_for_turn(self, me: object, given_up: int) -> bool:
        """Wait while another thread probes; returns whether it did. Raises `GaveUp` when the patience is over."""
        waited = False
        with self._changed:
            while self._down_since is not None and self._given_up == given_up:
                if self._prober is None and (self._last_prober is not me or not self._waiting):
                    self._check_patience(self._clock.monotonic() - self._down_since)
                    self._prober = self._last_prober = me
                    return waited
                waited = True
                self._wait()
            if self._given_up != given_up:
                raise GaveUp(self._last_words)
            return waited

    def _wait(self) -> None:
        self._waiting += 1
        try:
            self._changed.wait()
        finally:
            self._waiting -= 1

    def _check_patience(self, down: float) -> None:
        if down < self._patience:
            return
        self._given_up += 1
        self._last_words = f"{self._who} has not answered for {format_duration(down)} ({self._last_failure})"
        self._down_since = None
        self._changed.notify_all()
        raise GaveUp(self._last_words)

    def _note_failure(self, me: object, in_a_row: int, reason: str) -> int:
        """Open the breaker after enough failures; returns the failures in a row, which decide the next pause."""
        with self._changed:
            self._last_failure = reason
            if self._prober is me:
                self._failures_in_a_row += 1
                return self._failures_in_a_row
            if in_a_row < self._tries or self._down_since is not None:
                return in_a_row
            self._down_since, self._failures_in_a_row = self._clock.monotonic(), in_a_row
            self._prober = self._last_prober = me
            self._say(
                f"{self._who} does not answer since {datetime.now():%H:%M} ({reason}); asking again every "
                f"{LONGEST_PAUSE:g} s, for at most {format_duration(self._patience)}. What was answered is kept."
            )
            return in_a_row

    def _close(self) -> None:
        with self._changed:
            if self._down_since is None:
                return
            self._say(
                f"{self._who} answers again, after {format_duration(self._clock.monotonic() - self._down_since)}."
            )
            self._down_since = None
            self._changed.notify_all()

    def _let_another_probe(self, me: object) -> None:
        with self._changed:
            if self._prober is me:
                self._prober = None
                self._changed.notify_all()
