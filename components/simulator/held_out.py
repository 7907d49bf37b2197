"""How good a reward model is on prompts that nobody duels on. Pure.  E members, M prompts, N candidates."""

from __future__ import annotations

from math import nan

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..evaluation.regret import simple_regret
from ..exploration.strategies import pick_best_of_n
from .worlds import Floats, Indices


def measure_held_out(rewards: Floats, believed: Tensor) -> tuple[float, float, float]:
    """Return simple regret, win rate and pair accuracy. rewards: (M, N) the true ones; believed: (E, M, N)."""
    picked = pick_best_of_n(believed).numpy()
    regret = float(simple_regret(rewards, picked).mean())
    return regret, win_rate_of(rewards, picked), pair_accuracy(rewards, believed.mean(0).numpy())


def win_rate_of(rewards: Floats, picked: Indices) -> float:
    """Return how often the picked candidate is better than a random other one of its prompt; a tie is half a win."""
    margins = np.take_along_axis(rewards, picked[:, None], axis=1) - rewards
    # The picked one ties with itself, which is half a win that must not count.
    wins = ((1 + np.sign(margins)) / 2).sum(axis=1) - 0.5
    return float(wins.mean() / (rewards.shape[1] - 1))


def pair_accuracy(rewards: Floats, ranked: npt.NDArray[np.floating]) -> float:
    """Return the share of a prompt's pairs of unequal reward that are ranked right; both (M, N)."""
    first, second = np.triu_indices(rewards.shape[1], k=1)
    truth, guess = (np.sign(values[:, first] - values[:, second]) for values in (rewards, ranked))
    unequal = truth != 0
    return float(((1 + truth * guess) / 2)[unequal].mean()) if unequal.any() else nan
