"""What the ensemble learns from: pairs of features, made of a round's preferences.  B pairs, D features, K answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..records.records import Candidate, Duel, Preference, Prompt
from .replay import Replay


def pair_features(
    preferences: Sequence[Preference], duels: Sequence[Duel], candidates: Sequence[Candidate], features: Tensor
) -> Replay:
    """Return the features of the chosen and of the rejected answer of each preference, (B, D).

    Args:
        preferences: The round's preferences, in order.
        duels: The duels that they belong to.
        candidates: All candidates of the round.
        features: The candidates' features, (K, D).
    """
    by_id = {duel.duel_id: duel for duel in duels}
    place = {(row.prompt_id, row.response): number for number, row in enumerate(candidates)}
    sides = [_order_sides(by_id[row.duel_id], row) for row in preferences]
    chosen = [place[row.prompt_id, winner] for row, (winner, _) in zip(preferences, sides, strict=True)]
    rejected = [place[row.prompt_id, loser] for row, (_, loser) in zip(preferences, sides, strict=True)]
    kept = torch.tensor([is_learned_from(row) for row in preferences], dtype=torch.bool)
    return Replay(_take_rows(features, chosen), _take_rows(features, rejected), kept)


def pair_outside_features(outside: Sequence[Prompt], features: Tensor) -> Replay:
    """Return the pairs of preferences made elsewhere; features: (2B, D), the better answers and then the worse."""
    chosen, rejected = features.chunk(2)
    return Replay(chosen, rejected, torch.tensor([row.chosen != row.rejected for row in outside], dtype=torch.bool))


def is_learned_from(preference: Preference) -> bool:
    """Return whether the ensemble learns from a preference: not from clashes, nor from labels of its own members."""
    return preference.chosen is not None and not preference.synthetic


def _order_sides(duel: Duel, preference: Preference) -> tuple[str, str]:
    """Return the texts of the chosen and of the rejected answer; those of a clash are equal."""
    first_chosen = preference.chosen != "second"
    return (duel.first, duel.second) if first_chosen else (duel.second, duel.first)


def _take_rows(features: Tensor, places: Sequence[int]) -> Tensor:
    return features[torch.tensor(places, dtype=torch.int64)]
