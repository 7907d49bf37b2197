"""Which two of a prompt's candidates should duel: pure functions on their numbers."""

from __future__ import annotations

from collections.abc import Callable

Strategy = Callable[[int], tuple[int, int]]


def passive(candidates: int) -> tuple[int, int]:
    """Let the first two of `candidates` duel, whatever they say: they are independent draws."""
    assert candidates >= 2, f"{candidates} candidates cannot duel"
    return 0, 1


STRATEGIES: dict[str, Strategy] = {"passive": passive}
