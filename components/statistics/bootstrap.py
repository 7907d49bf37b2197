"""Bootstrap intervals over prompts and over seeds. Pure.

n values; P prompts and R measured rounds of one experiment; B resamples. An outcome is 1 for a prompt won, 0.5 for a
tie, 0 for a loss. A resample is drawn as weights of the prompts, which add up to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .intervals import Estimate, wilson_interval

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

SAMPLES = 1_000
"""Resamples behind an interval of a report: its ends are known to about a fortieth of its width."""
_EDGES = (0.025, 0.975)
_OUTCOMES = np.array([1.0, 0.5, 0.0])


def score_outcomes(wins: Sequence[float] | Floats) -> Floats:
    """Return the outcomes of these probabilities of a win."""
    chances = np.asarray(wins, dtype=np.float64)
    found: Floats = (chances > 0.5) + 0.5 * (chances == 0.5)
    return found


def outcome_interval(counts: Counts, samples: int, seed: int) -> tuple[float, float]:
    """Return the 95% percentile interval of a win rate over prompts drawn with replacement (Efron 1979).

    counts: (3,) prompts won, tied, lost. An outcome has only these three values, so drawing n prompts with replacement
    is drawing their counts from a multinomial distribution.
    """
    n = int(counts.sum())
    if n in (counts[0], counts[2]):
        # Resampling equal outcomes gives an interval of no width, however few they are; Wilson's (1927) has one.
        return wilson_interval(float(counts[0] > 0), n)
    return _percentile_interval(_OUTCOMES, counts, samples, seed)


def mean_interval(values: Floats, samples: int, seed: int) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean of the values (n,), drawn with replacement (Efron 1979).

    It has no width where all values are equal. Draws counts of the distinct values, which may be far fewer than n.
    """
    return _percentile_interval(*np.unique(values, return_counts=True), samples, seed)


def _percentile_interval(values: Floats, counts: Counts, samples: int, seed: int) -> tuple[float, float]:
    n = int(counts.sum())
    resampled = np.random.default_rng(seed).multinomial(n, counts / n, size=samples)
    low, high = np.quantile(resampled @ values / n, _EDGES)
    return float(low), float(high)


def estimate_mean(values: Sequence[float] | Floats, seed: int) -> Estimate:
    """Return the mean with its 95% percentile interval over values drawn with replacement (Efron 1979).

    For differences within prompts, this is the paired bootstrap.
    """
    numbers = np.asarray(values, dtype=np.float64)
    return Estimate(float(numbers.mean()), *mean_interval(numbers, SAMPLES, seed))


def draw_prompts(prompts: int, seed: int) -> Floats:
    """Draw prompts with replacement, B times; returns their weights, (B, P)."""
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=SAMPLES)
    weights: Floats = drawn / prompts
    return weights


def draw_seeds(seeds: int, seed: int) -> Counts:
    """Draw experiments that differ only in their seed with replacement, B times; returns their indices, (B, S)."""
    return np.random.default_rng(seed).integers(0, seeds, size=(SAMPLES, seeds))


def resample_rates(won: Floats, weights: Floats) -> Floats:
    """Return the win rates in each resample of the prompts, (B, R). won: (R, P) outcomes, NaN where not judged."""
    judged = ~np.isnan(won)
    rates: Floats = (weights @ np.where(judged, won, 0.0).T) / np.maximum(weights @ judged.T, 1e-12)
    return rates


def resample_seeds(found: Sequence[Floats], draws: Counts) -> Floats:
    """Return the numbers of the drawn seeds, (B, S, ...). found: (B, ...) of each of S seeds.

    All seeds share the held-out prompts, so these are drawn once for all of them (Owen 2007, the pigeonhole
    bootstrap): a prompt that is hard for one seed is hard for the others.
    """
    stacked = np.stack(found, 1)
    drawn: Floats = stacked[np.arange(len(stacked))[:, None], draws]
    return drawn


def estimate_from(value: float, resampled: Floats) -> Estimate:
    """Return a number with the 95% percentile interval of its resamples; its ends may be infinite."""
    low, high = np.quantile(resampled, _EDGES, method="inverted_cdf" if np.isinf(resampled).any() else "linear")
    return Estimate(value, float(low), float(high))


def find_reach(rates: Floats, queries: Sequence[int], level: float) -> Floats:
    """Return after how many queries a win rate was first measured at `level` or above; infinite where it never was.

    rates: (..., R), the measured rounds in order. Returns (...).
    """
    reached = rates >= level - 1e-12
    first: Floats = np.where(reached.any(-1), np.asarray(queries, dtype=np.float64)[reached.argmax(-1)], np.inf)
    return first


def upper_median(values: Floats) -> Floats:
    """Return the upper median over the last axis, which may be infinite."""
    ordered: Floats = np.sort(values, -1)[..., values.shape[-1] // 2]
    return ordered
