"""The Bradley-Terry model: from two rewards to the probability that the first response wins."""

from __future__ import annotations

from math import exp


def win_probability(first_reward: float, second_reward: float, temperature: float = 1.0) -> float:
    """Return sigmoid((first - second) / temperature), exact at both ends, where a naive sigmoid overflows."""
    margin = (first_reward - second_reward) / temperature
    return 1 / (1 + exp(-margin)) if margin >= 0 else exp(margin) / (1 + exp(margin))
