"""What may be spent on an oracle, kept exactly: a question is asked only if its dearest answer can still be paid."""

from __future__ import annotations

import threading


class Purse:
    """A limit, what was spent, and what questions on their way may cost at most. Safe to share between threads."""

    def __init__(self, limit: float | None):
        self.limit = limit
        self._spent = self._held = 0.0
        self._lock = threading.Lock()

    @property
    def spent(self) -> float:
        """What was paid so far, by this process and, as `note` told, before it."""
        return self._spent

    def note(self, spent: float) -> None:
        """Take over what was paid before."""
        with self._lock:
            self._spent = spent

    def hold(self, most: float) -> bool:
        """Set `most` aside for a question; False if that could pass the limit: then do not ask."""
        with self._lock:
            if self.limit is not None and self._spent + self._held + most > self.limit:
                return False
            self._held += most
            return True

    def pay(self, held: float, cost: float) -> None:
        """Settle a question that `held` was set aside for."""
        with self._lock:
            self._held -= held
            self._spent += cost
