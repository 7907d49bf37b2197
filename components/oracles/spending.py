"""A spending limit that holds: a question is asked only if its highest possible cost is still within the limit.

A process may be killed after it has paid, and before it has written down what it paid. So the most that a batch may
cost is noted in the ledger before the batch is asked. Questions that turn out dearer, because failed requests count as
paid, are noted again before more is spent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ..records.records import Duel


class Spending:
    """A limit, what was spent, and the most that questions in flight may cost. Threads may share it.

    Args:
        limit: Most that may be spent in all; None without a limit.
        price_dearest: Returns the highest possible cost of a duel whose requests all succeed.
    """

    def __init__(self, limit: float | None, price_dearest: Callable[[Duel], float] = lambda duel: 0.0):
        self.limit, self._price_dearest = limit, price_dearest
        self._spent = self._held = 0.0
        self._write_note: Callable[[float], None] | None = None
        self._spent_before_batch = self._noted = 0.0
        self._lock = threading.Lock()

    @property
    def spent(self) -> float:
        """What was paid so far, by this process and before it."""
        return self._spent

    def note_spent(self, spent: float) -> None:
        """Set what was paid before."""
        with self._lock:
            self._spent = spent

    def begin_batch(self, duels: Sequence[Duel], write_note: Callable[[float], None]) -> None:
        """Note durably what these duels may cost at most.

        Args:
            duels: What is asked next.
            write_note: Stores the highest possible cost of the batch. It is called again with a higher one before
                more than that is spent.
        """
        with self._lock:
            self._write_note, self._spent_before_batch = write_note, self._spent
            self._note_cost(0.0, sum(map(self._price_dearest, duels)))

    def hold_money(self, most: float) -> bool:
        """Reserve `most` for a question. Returns False if that could exceed the limit: then do not ask."""
        with self._lock:
            if self.limit is not None and self._spent + self._held + most > self.limit:
                return False
            self._note_if_dearer(self._held + most)
            self._held += most
            return True

    def settle_cost(self, held: float, cost: float) -> None:
        """Book the cost of a question for which `held` was reserved."""
        with self._lock:
            self._held -= held
            self._spent += cost
            # An endpoint may bill more than was thought possible.
            self._note_if_dearer(self._held)

    def _note_if_dearer(self, held: float) -> None:
        needed = self._spent - self._spent_before_batch + held
        # Sums of the same numbers in another order differ in their last bits.
        if self._write_note is not None and needed > self._noted * (1 + 1e-9):
            self._note_cost(needed, 2 * self._noted)

    def _note_cost(self, needed: float, wanted: float) -> None:
        """Store that the batch may cost `wanted`, or what is left to spend if that is less, but `needed` at least."""
        assert self._write_note is not None
        if self.limit is not None:
            wanted = min(wanted, self.limit - self._spent_before_batch)
        most = max(needed, wanted)
        self._write_note(most)
        self._noted = most


class Bill:
    """What one duel has cost, and what is reserved for its other requests."""

    def __init__(self, spending: Spending):
        self._spending, self._held, self.paid = spending, 0.0, 0.0

    def hold_more(self, most: float) -> bool:
        """Reserve money for one more request. Returns False if that could exceed the limit."""
        is_held = self._spending.hold_money(most)
        self._held += most if is_held else 0.0
        return is_held

    def pay(self, held: float, cost: float) -> None:
        """Book the cost of a request for which `held` was reserved."""
        self._held -= held
        self.paid += cost
        self._spending.settle_cost(held, cost)

    def close(self) -> None:
        """Give back what is still reserved."""
        self._spending.settle_cost(self._held, 0.0)
        self._held = 0.0
