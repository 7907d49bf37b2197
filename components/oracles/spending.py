"""A spending limit, kept exactly: a question is asked only if its highest possible cost is still within the limit."""

from __future__ import annotations

import threading


class Spending:
    """A limit, what was spent, and the most that questions in flight may cost. Safe to share between threads."""

    def __init__(self, limit: float | None):
        self.limit = limit
        self._spent = self._held = 0.0
        self._lock = threading.Lock()

    @property
    def spent(self) -> float:
        """What was paid so far, by this process and before it."""
        return self._spent

    def note_spent(self, spent: float) -> None:
        """Set what was paid before."""
        with self._lock:
            self._spent = spent

    def hold_money(self, most: float) -> bool:
        """Reserve `most` for a question. Returns False if that could exceed the limit: then do not ask."""
        with self._lock:
            if self.limit is not None and self._spent + self._held + most > self.limit:
                return False
            self._held += most
            return True

    def settle_cost(self, held: float, cost: float) -> None:
        """Book the cost of a question for which `held` was reserved."""
        with self._lock:
            self._held -= held
            self._spent += cost
