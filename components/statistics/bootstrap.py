"""Bootstrap intervals over prompts and over seeds. Pure.

n values; P prompts and R measured rounds of one experiment; B resamples. An outcome is 1 for a prompt won, 0.5 for a
tie, 0 for a loss. A resample is drawn as weights of the prompts, which add up to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .intervals import Estimate

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

SAMPLES = 1_000
"""Resamples behind an interval of a report: its ends are known to about a fortieth of its width."""
ADDED = np.array([1.0, 1.0, 0.0, 0.0])
"""Outcomes that are resampled beside those of the prompts, as in `intervals.outcome_interval`: two wins, two losses."""
ADDED_DIFFERENCES = np.array([1.0, 1.0, -1.0, -1.0])
"""The same for differences of two outcomes."""


def score_outcomes(wins: Sequence[float] | Floats) -> Floats:
    """Return the outcomes of these probabilities of a win."""
    chances = np.asarray(wins, dtype=np.float64)
    found: Floats = (chances > 0.5) + 0.5 * (chances == 0.5)
    return found


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


def estimate_from(value: float, resampled: Floats, comparisons: int = 1) -> Estimate:
    """Return a number with the 95% percentile interval of its resamples; its ends may be infinite.

    `comparisons`: how many intervals shall hold together with 95% (Bonferroni).
    """
    edges = (0.025 / comparisons, 1 - 0.025 / comparisons)
    low, high = np.quantile(resampled, edges, method="inverted_cdf" if np.isinf(resampled).any() else "linear")
    return Estimate(value, min(float(low), value), max(float(high), value))


def find_reach(lows: Floats, queries: Sequence[int], level: float) -> Floats:
    """Return after how many queries a win rate was first at `level` or above for certain; infinite where it never was.

    That is where the lower end of its interval is: of many measured rounds, one comes out above a level by chance.

    lows: (..., R), the lower ends of the measured rounds in order. Returns (...).
    """
    reached = lows >= level - 1e-12
    first: Floats = np.where(reached.any(-1), np.asarray(queries, dtype=np.float64)[reached.argmax(-1)], np.inf)
    return first


def upper_median(values: Floats) -> Floats:
    """Return the upper median over the last axis, which may be infinite."""
    ordered: Floats = np.sort(values, -1)[..., values.shape[-1] // 2]
    return ordered
