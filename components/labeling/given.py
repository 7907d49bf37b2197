"""Labels of an offline round: the preference set says which answer is better, and nobody is asked. Pure."""

from __future__ import annotations

from ..records.records import CHOSEN, Duel, Preference
from .labels import clash_preference

PREFERENCE_SET = "preference set"
"""Stands where an oracle would be named."""


def given_preference(duel: Duel) -> Preference:
    """Return the set's label of a duel, which is certain; a clash has none.

    It belongs to the row that the duel was made of: another row may hold the same two answers the other way round.
    """
    if duel.clash:
        return clash_preference(duel)
    first = duel.first_candidate == CHOSEN
    chosen = "first" if first else "second"
    return Preference(duel.duel_id, duel.prompt_id, False, float(first), chosen, None, None, PREFERENCE_SET)
