"""Regret: the cost of not picking the best candidate (SEA, arXiv:2411.01493, section 3). Pure.

M prompts, N candidates each; rewards are the known, true ones. The best is the best of the candidates that were drawn,
so that regret is never negative and 0 can be reached.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.integer]


def duel_regret(rewards: Floats, pairs: Indices) -> Floats:
    """Regret of showing both members of a duel, under Bradley and Terry: r* - (r_1 + r_2) / 2.

    rewards: (M, N); pairs: (M, 2) candidate indices, equal ones for a clash. Returns (M,).
    """
    _check_shape(pairs, (len(rewards), 2), "pairs")
    regret: Floats = rewards.max(axis=1) - np.take_along_axis(rewards, pairs, axis=1).mean(axis=1)
    # A mean may round to a little more than the best.
    return np.maximum(regret, 0)


def simple_regret(rewards: Floats, picked: Indices) -> Floats:
    """Regret of one recommended candidate: r* - r. rewards: (M, N); picked: (M,). Returns (M,)."""
    _check_shape(picked, (len(rewards),), "picked")
    regret: Floats = rewards.max(axis=1) - np.take_along_axis(rewards, picked[:, None], axis=1)[:, 0]
    return regret


def _check_shape(given: npt.NDArray[np.generic], shape: tuple[int, ...], name: str) -> None:
    if given.shape != shape:
        raise ValueError(f"{name} has shape {given.shape}, expected {shape}")
