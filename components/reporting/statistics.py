"""What may be concluded from judged prompts: intervals, tests, and the win rate at equal length. Pure.

n held-out prompts; P prompts and R measured rounds of one experiment; B resamples. An outcome is 1 for a prompt won,
0.5 for a tie, 0 for a loss. A resample is drawn as weights of the prompts, which add up to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..evaluation.win_rate import mean_interval

Floats = npt.NDArray[np.float64]

SAMPLES = 1_000
"""Resamples behind an interval: its ends are known to about a fortieth of its width."""
EVIDENCE = 10
"""Fewest wins, and fewest losses, for a regression on length: ten a coefficient is the usual rule."""
_RIDGE = 0.1
_STEPS, _STEPS_FROM_WHOLE = 12, 4
_LONGEST_STEP = 2.0
_EDGES = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, and where it lies with 95% confidence."""

    value: float
    low: float
    high: float


def outcomes(wins: Sequence[float] | Floats) -> Floats:
    """Turn probabilities of a win into outcomes."""
    chances = np.asarray(wins, dtype=np.float64)
    found: Floats = (chances > 0.5) + 0.5 * (chances == 0.5)
    return found


def mean(values: Sequence[float] | Floats, seed: int) -> Estimate:
    """Mean with its 95% percentile interval over values drawn with replacement (Efron 1979).

    Of differences that belong to the same prompts, this is the paired bootstrap.
    """
    numbers = np.asarray(values, dtype=np.float64)
    return Estimate(float(numbers.mean()), *mean_interval(numbers, SAMPLES, seed))


def sign_test(wins: int, losses: int) -> float | None:
    """Two-sided exact p-value that wins and losses are equally likely; ties say nothing. None where nothing else is."""
    decided = wins + losses
    if not decided:
        return None
    tail = ways = 1
    for number in range(min(wins, losses)):
        ways = ways * (decided - number) // (number + 1)
        tail += ways
    # Whole numbers to the last: a power of two may be larger than any float.
    return min(1.0, float(2 * tail / 2**decided))


def no_length_control(won: Floats, longer: Floats) -> str:
    """Say why there is no win rate at equal length; nothing where there is one. As `at_equal_length` takes them."""
    wins, losses = int((won > 0.5).sum()), int((won < 0.5).sum())
    if min(wins, losses) < EVIDENCE:
        return f"needs {EVIDENCE} wins and {EVIDENCE} losses; there are {wins} and {losses}"
    if not longer.any():
        return "all answers are as long as the opponent’s, so the win rate is at equal length already"
    if longer.min() > 0 or longer.max() < 0:
        side = "longer" if longer.min() > 0 else "shorter"
        return f"all answers are {side} than the opponent’s, so equal length is nowhere near the data"
    return ""


def at_equal_length(won: Floats, longer: Floats, weights: Floats) -> tuple[float, Floats]:
    """Win rate that the policy would have if its answers were as long as the opponent's, and of each resample, (B,).

    won: (n,) outcomes; longer: (n,) tokens of the policy's answer minus the opponent's; weights: (B, n).
    After the length-controlled AlpacaEval (Dubois et al. 2024, arXiv 2404.04475): a logistic regression of the outcome
    on tanh(difference in length / its standard deviation), and its prediction where the difference is 0. That paper
    fits many models and prompts at once; here two coefficients are all that some hundred prompts carry. A ridge on the
    slope keeps it finite where length alone tells wins from losses.
    """
    x = np.tanh(longer / longer.std())
    whole = _fit(won, x, np.ones((1, len(won))), np.zeros((1, 2)), _STEPS)
    fitted = _fit(won, x, weights * len(won), np.repeat(whole, len(weights), 0), _STEPS_FROM_WHOLE)
    return float(_sigmoid(whole[0, 0])), _sigmoid(fitted[:, 0])


def _fit(won: Floats, x: Floats, weights: Floats, start: Floats, steps: int) -> Floats:
    """Fit B logistic regressions with an intercept at once, by Newton's method. weights: (B, n); returns (B, 2)."""
    found = start
    for _ in range(steps):
        chance = _sigmoid(found[:, :1] + found[:, 1:] * x)
        error, spread = weights * (won - chance), weights * chance * (1 - chance)
        slope, curve = error @ x - _RIDGE * found[:, 1], spread @ (x * x) + _RIDGE
        level, both, base = error.sum(1), spread @ x, spread.sum(1) + 1e-9
        determinant = base * curve - both * both
        step = np.stack([(curve * level - both * slope), (base * slope - both * level)], 1) / determinant[:, None]
        found = found + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
    return found


def _sigmoid(value: Floats) -> Floats:
    result: Floats = 0.5 * (1 + np.tanh(0.5 * value))
    return result


def prompt_weights(prompts: int, seed: int) -> Floats:
    """Draw prompts with replacement, B times: (B, P) weights."""
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=SAMPLES)
    weights: Floats = drawn / prompts
    return weights


def seed_draws(seeds: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw experiments with replacement, B times: (B, S) numbers of experiments that differ in their seed alone."""
    return np.random.default_rng(seed).integers(0, seeds, size=(SAMPLES, seeds))


def resampled_rates(won: Floats, weights: Floats) -> Floats:
    """Win rates in each resample of the prompts. won: (R, P) outcomes, NaN where a prompt was not judged; (B, R)."""
    judged = ~np.isnan(won)
    rates: Floats = (weights @ np.where(judged, won, 0.0).T) / np.maximum(weights @ judged.T, 1e-12)
    return rates


def over_seeds(found: Sequence[Floats], draws: npt.NDArray[np.int64]) -> Floats:
    """Draw seeds after prompts. found: for each of S seeds (B, ...), of the same draws of prompts. Returns (B, S, ...).

    Held-out prompts are shared by all seeds, so they are drawn once for all of them (Owen 2007, the pigeonhole
    bootstrap): a prompt that is hard for one seed is hard for the others.
    """
    stacked = np.stack(found, 1)
    drawn: Floats = stacked[np.arange(len(stacked))[:, None], draws]
    return drawn


def between(value: float, resampled: Floats) -> Estimate:
    """Return a number with the 95% percentile interval of its resamples, which may be infinite."""
    low, high = np.quantile(resampled, _EDGES, method="inverted_cdf" if np.isinf(resampled).any() else "linear")
    return Estimate(value, float(low), float(high))


def first_reach(rates: Floats, queries: Sequence[int], level: float) -> Floats:
    """Queries after which a win rate was first measured at `level` or above; infinite where it never was.

    rates: (..., R), the measured rounds in order. Returns (...).
    """
    reached = rates >= level - 1e-12
    first: Floats = np.where(reached.any(-1), np.asarray(queries, dtype=np.float64)[reached.argmax(-1)], np.inf)
    return first


def middle(values: Floats) -> Floats:
    """Upper median over the last axis: the least value that more than half of them do not exceed; may be infinite."""
    ordered: Floats = np.sort(values, -1)[..., values.shape[-1] // 2]
    return ordered
