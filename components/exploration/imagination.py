"""Synthetic pairs: preferences that a member of the ensemble predicts (SEA, arXiv:2411.01493, section 4).

E members, M prompts, N candidates. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .strategies import Beliefs


@dataclass(frozen=True, slots=True)
class Imagined:
    """Synthetic pairs.

    Attributes:
        which: (M,) whether a prompt gets one. If not, its member and its pair mean nothing.
        member: (M,) the member that predicts it.
        pairs: (M, 2) winner and loser.
    """

    which: Tensor
    member: Tensor
    pairs: Tensor


def imagine_pairs(beliefs: Beliefs, ratio: float, seed: int) -> Imagined:
    """Pair the best and the worst candidate of one member, for a share of the prompts.

    floor(M * ratio) prompts are drawn uniformly, and a member for each of them. Ties are broken at random. A prompt
    whose candidates all have the same reward gets no pair.
    """
    chance = torch.Generator().manual_seed(seed)
    members, prompts, candidates = beliefs.rewards.shape
    chosen = torch.zeros(prompts, dtype=torch.bool)
    chosen[torch.randperm(prompts, generator=chance)[: int(prompts * ratio)]] = True
    member = torch.randint(members, (prompts,), generator=chance)
    rewards = beliefs.rewards[member, torch.arange(prompts)]
    best = argmax_with_ties(rewards, torch.rand(prompts, candidates, generator=chance))
    worst = argmax_with_ties(-rewards, torch.rand(prompts, candidates, generator=chance))
    pairs = torch.stack([best, worst], dim=1)
    return Imagined(chosen & (rewards.gather(1, pairs).diff(dim=1)[:, 0] < 0), member, pairs)


def argmax_with_ties(values: Tensor, chance: Tensor) -> Tensor:
    """Return the index of the largest value of each row; ties go to the largest `chance`. (M, N) -> (M,)."""
    tied = values == values.amax(1, keepdim=True)
    return chance.masked_fill(~tied, -1).argmax(1)


def is_burnt_in(round_: int, burn_in_period: int) -> bool:
    """Whether a round, counted from 0, may have synthetic pairs."""
    return round_ >= burn_in_period
