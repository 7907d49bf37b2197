"""What a round may ask. Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from ..records.records import Duel


@dataclass(frozen=True, slots=True)
class Affordable:
    """The duels that get a preference, in order, and the number of queries that this takes."""

    duels: list[Duel]
    queries: int


def within_budget(duels: Sequence[Duel], queries_left: int, answered: Container[str] = ()) -> Affordable:
    """Keep the duels that `queries_left` pays for: first come, first served.

    Clashes, repetitions of a duel, duels that were `answered` before and pairs that a member labels cost nothing. A
    duel that the budget does not reach is left out.
    """
    paid: set[str] = set()
    kept = []
    for duel in duels:
        is_free = duel.clash or duel.labelled_by_member or duel.duel_id in answered
        if not is_free and duel.duel_id not in paid:
            if len(paid) == queries_left:
                continue
            paid.add(duel.duel_id)
        kept.append(duel)
    return Affordable(kept, len(paid))
