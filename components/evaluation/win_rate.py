"""Who wins on held-out prompts, and how sure one can be. Pure; n judged prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .intervals import wilson_interval

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WinRate:
    """`win_rate`: share of prompts won, a tie being half a win; `low`, `high`: its 95% interval.

    `mean_probability`: mean probability of a win; it says how clearly, where the win rate says how often.
    """

    win_rate: float
    mean_probability: float
    low: float
    high: float


def win_rate(wins: Probabilities, samples: int, seed: int) -> WinRate:
    """Sum up the probabilities (n,) that the policy's answer wins.

    Oat reports mean(P > 0.5), which counts a tie as a loss, so that a policy which answers exactly as its opponent
    scores 0. Here a tie is half a win, that policy scores 0.5, and changing sides turns a win rate w into 1 - w.
    """
    if not len(wins):
        raise ValueError("wins is empty: a win rate needs at least one judged prompt")
    counts = np.array([(wins > 0.5).sum(), (wins == 0.5).sum(), (wins < 0.5).sum()])
    low, high = bootstrap_interval(counts, samples, seed)
    return WinRate(_share(counts), float(wins.mean()), low, high)


def bootstrap_interval(counts: npt.NDArray[np.int64], samples: int, seed: int) -> tuple[float, float]:
    """95% percentile interval of the win rate over prompts drawn with replacement (Efron 1979).

    counts: (3,) prompts won, tied, lost. An outcome has only these three values, so that drawing n prompts with
    replacement is drawing their counts from a multinomial: the same law without n x samples numbers.
    """
    n = int(counts.sum())
    if n in (counts[0], counts[2]):
        # Resampling equal outcomes gives no width at all, however few they are; Wilson's interval (1927) does.
        return wilson_interval(float(counts[0] > 0), n)
    resampled = np.random.default_rng(seed).multinomial(n, counts / n, size=samples)
    low, high = np.quantile(resampled @ np.array([1.0, 0.5, 0.0]) / n, [0.025, 0.975])
    return float(low), float(high)


def mean_interval(values: npt.NDArray[np.float64], samples: int, seed: int) -> tuple[float, float]:
    """95% percentile interval of the mean of the values (n,), drawn with replacement (Efron 1979).

    It has no width where all values are equal. Drawn as the counts of the distinct values, of which there may be many
    fewer than n.
    """
    distinct, counts = np.unique(values, return_counts=True)
    n = len(values)
    resampled = np.random.default_rng(seed).multinomial(n, counts / n, size=samples)
    low, high = np.quantile(resampled @ distinct / n, [0.025, 0.975])
    return float(low), float(high)


def _share(counts: npt.NDArray[np.int64]) -> float:
    return float((counts[0] + 0.5 * counts[1]) / counts.sum())
