"""What the members together believe of a duel, and how little they agree.  E members, M prompts, N candidates.

Of rewards (E, M, N), a table (M, N, N) has the duel of candidates i and j at [:, i, j]. One member never disagrees: its
uncertainty is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor


def win_probability(first: Tensor, second: Tensor) -> Tensor:
    """Return the probability that the first answer beats the second (Bradley-Terry): the mean over the members, (...).

    first, second: (E, ...) rewards.
    """
    if first.shape != second.shape:
        raise ValueError(f"first and second must have one shape, not {tuple(first.shape)} and {tuple(second.shape)}")
    return torch.sigmoid(first - second).mean(0)


def logits_variance(rewards: Tensor) -> Tensor:
    """Return the variance over the members of reward differences, (M, N, N): what Oat's code goes by."""
    return _variance(_differences(rewards))


def probabilities_variance(rewards: Tensor) -> Tensor:
    """Return the variance over the members of win probabilities, (M, N, N): what the paper goes by (SEA, section 4)."""
    return _variance(torch.sigmoid(_differences(rewards)))


def bernoulli_variance(rewards: Tensor) -> Tensor:
    """Return the variance of the duel's outcome, (M, N, N): also high where the members agree that it is open."""
    probability = torch.sigmoid(_differences(rewards)).mean(0)
    return probability * (1 - probability)


def kl_divergence(rewards: Tensor) -> Tensor:
    """Return the mean divergence of the members' win probabilities from their mixture, (M, N, N).

    It is the information that the outcome has about which member is right (BALD, arXiv:1112.5745, equation 2), in nats.
    """
    probabilities = torch.sigmoid(_differences(rewards))
    information = _entropy(probabilities.mean(0)) - _entropy(probabilities).mean(0)
    # Never negative, but for rounding.
    return information.clamp(min=0)


def _differences(rewards: Tensor) -> Tensor:
    """(E, M, N) to (E, M, N, N)."""
    return rewards.unsqueeze(-1) - rewards.unsqueeze(-2)


def _variance(values: Tensor) -> Tensor:
    """Unbiased, over the members."""
    return values.var(0, correction=min(1, len(values) - 1))


def _entropy(probability: Tensor) -> Tensor:
    return -torch.xlogy(probability, probability) - torch.xlogy(1 - probability, 1 - probability)
