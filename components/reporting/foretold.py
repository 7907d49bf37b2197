"""Reliability of the ensemble: the win probabilities that it predicted against how often they came true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ..ledger.ledger import Ledger
from ..statistics.intervals import wilson_interval
from .curves import SampledDuel, answered_duels

ROUNDS = 10
"""Only the predictions of this many last rounds count: the ensemble of earlier rounds was a different one."""
BINS = 5


@dataclass(frozen=True, slots=True)
class Bin:
    """Duels whose favourite had about the same predicted chance: its mean, and how often the favourite won."""

    promised: float
    kept: float
    low: float
    high: float
    duels: int


@dataclass(frozen=True, slots=True)
class Foretold:
    """Bins that are not empty, least sure first, of the rounds `first` to `last`."""

    bins: tuple[Bin, ...]
    first: int
    last: int

    @property
    def duels(self) -> int:
        """Duels in all bins."""
        return sum(one.duels for one in self.bins)


def read_foretold(ledger: Ledger, rounds: Sequence[int]) -> Foretold | None:
    """Compare the ensemble's predictions in the last of these rounds with the labels; None without predictions."""
    looked = list(rounds)[-ROUNDS:]
    if not looked:
        return None
    duels = [sample for round_ in looked for sample in answered_duels(ledger, round_)]
    bins = sort_predictions(duels)
    return Foretold(tuple(bins), looked[0], looked[-1]) if bins else None


def sort_predictions(samples: Sequence[SampledDuel]) -> list[Bin]:
    """Sort duels by the ensemble's chance for its favourite, from 50% to 100%, and count how often it won.

    The order of the answers means nothing, so a prediction of 20% is one of 80% for the other answer. Labels from a
    member of the ensemble are left out: the ensemble would be judged by itself.
    """
    told = [
        (max(duel.predicted, 1 - duel.predicted), (preference.chosen == "first") == (duel.predicted >= 0.5))
        for duel, preference in ((sample.duel, sample.preference) for sample in samples)
        if duel.predicted is not None and not duel.labelled_by_member and preference.chosen is not None
    ]
    sorted_in: dict[int, list[tuple[float, bool]]] = {}
    for chance, won in told:
        sorted_in.setdefault(min(int((chance - 0.5) * 2 * BINS), BINS - 1), []).append((chance, won))
    return [_make_bin(sorted_in[place]) for place in sorted(sorted_in)]


def _make_bin(told: Sequence[tuple[float, bool]]) -> Bin:
    promised, kept = (fmean(values) for values in zip(*told, strict=True))
    return Bin(promised, kept, *wilson_interval(kept, len(told)), len(told))
