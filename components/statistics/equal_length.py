"""The win rate at equal length: a logistic regression of the outcome on the difference in length. Pure.

n held-out prompts; B resamples, each given as weights of the prompts, which add up to 1. An outcome is 1 for a prompt
won, 0.5 for a tie, 0 for a loss.
"""

from __future__ import annotations

import numpy as np

from .bootstrap import Floats

EVIDENCE = 10
"""Fewest wins, and fewest losses, for a regression on length: ten per coefficient is the usual rule."""
_RIDGE = 0.1
_STEPS, _STEPS_FROM_WHOLE = 12, 4
_LONGEST_STEP = 2.0


def refuse_length_control(won: Floats, longer: Floats) -> str:
    """Return why there is no win rate at equal length, or "" where there is one. Arguments as in `fit_equal_length`."""
    wins, losses = int((won > 0.5).sum()), int((won < 0.5).sum())
    if min(wins, losses) < EVIDENCE:
        return f"needs {EVIDENCE} wins and {EVIDENCE} losses; there are {wins} and {losses}"
    if not longer.any():
        return "all answers are as long as the opponent’s, so the win rate is at equal length already"
    if longer.min() > 0 or longer.max() < 0:
        side = "longer" if longer.min() > 0 else "shorter"
        return f"all answers are {side} than the opponent’s, so equal length is nowhere near the data"
    return ""


def fit_equal_length(won: Floats, longer: Floats, weights: Floats) -> tuple[float, Floats]:
    """Return the win rate expected of answers as long as the opponent's, and the same for each resample, (B,).

    won: (n,) outcomes; longer: (n,) tokens of the policy's answer minus the opponent's; weights: (B, n).
    After the length-controlled AlpacaEval (Dubois et al. 2024, arXiv 2404.04475): a logistic regression of the outcome
    on tanh(difference in length / its standard deviation), and its prediction where the difference is 0. That paper
    fits many models and prompts at once; a few hundred prompts carry two coefficients and no more. A ridge on the slope
    keeps it finite where length alone separates wins from losses.
    """
    x = np.tanh(longer / longer.std())
    whole = _fit_logistic(won, x, np.ones((1, len(won))), np.zeros((1, 2)), _STEPS)
    fitted = _fit_logistic(won, x, weights * len(won), np.repeat(whole, len(weights), 0), _STEPS_FROM_WHOLE)
    return float(_sigmoid(whole[0, 0])), _sigmoid(fitted[:, 0])


def _fit_logistic(won: Floats, x: Floats, weights: Floats, start: Floats, steps: int) -> Floats:
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
