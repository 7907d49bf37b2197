"""Which rounds' preferences a round learns from: pure functions of the round.

Preferences enter a buffer in their order. When it is full the oldest leave it, and every so many rounds it is cleared.
"""

from __future__ import annotations

from collections.abc import Sequence


def buffered_rounds(round_: int, clear_every: int | None) -> range:
    """Return the rounds whose preferences may still be in the buffer, oldest first, `round_` itself last."""
    return range(round_ // clear_every * clear_every if clear_every else 0, round_ + 1)


def buffer_sizes(rows: Sequence[int], maxlen: int | None, clear_every: int | None) -> list[int]:
    """Return how many preferences each round learns from, if round r brings ``rows[r]`` new ones.

    `maxlen` None: those of the round itself.
    """
    if maxlen is None:
        return list(rows)
    return [
        min(maxlen, sum(rows[earlier] for earlier in buffered_rounds(round_, clear_every)))
        for round_ in range(len(rows))
    ]
