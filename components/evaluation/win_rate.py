"""The win rate on held-out prompts and its interval. Pure; n judged prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..statistics.bootstrap import score_outcomes
from ..statistics.intervals import estimate_outcome

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WinRate:
    """`win_rate`: share of prompts won, a tie being half a win; `low`, `high`: its 95% interval.

    `mean_probability`: mean probability of a win; it says how clearly, where the win rate says how often.
    """

    win_rate: float
    mean_probability: float
    low: float | None
    high: float | None


def win_rate(wins: Probabilities) -> WinRate:
    """Return the win rate of a policy from the probabilities (n,) that its answers win.

    Oat reports mean(P > 0.5), which counts a tie as a loss: a policy that answers exactly as its opponent scores 0.
    Here a tie is half a win, that policy scores 0.5, and swapping the sides turns a win rate w into 1 - w.
    """
    if not len(wins):
        raise ValueError("wins is empty: a win rate needs at least one judged prompt")
    found = estimate_outcome(score_outcomes(wins))
    return WinRate(found.value, float(wins.mean()), found.low, found.high)
