"""Calibration of a predicted probability of winning. Pure; B duels.

`predicted` (B,): the probability that the first answer wins, as the reward model sees it before it learns from the
duel; `won` (B,): what the oracle said, a label (0 or 1) or a probability.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def brier_score(predicted: Floats, won: Floats) -> float:
    """Mean squared error of the prediction (Brier 1950): 0 is perfect, 0.25 is what a constant one half gets."""
    _check_shapes(predicted, won)
    return float(np.mean((predicted - won) ** 2))


def expected_calibration_error(predicted: Floats, won: Floats, bins: int = 10) -> float:
    """Mean distance between prediction and outcome, by bins of equal width weighted by their duels (Guo et al. 2017).

    A prediction on an edge belongs to the bin above it; 1 belongs to the last.
    """
    _check_shapes(predicted, won)
    bin_of = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, predicted - won, minlength=bins)
    return float(np.abs(gaps).sum() / len(predicted))


def calibrated_error(predicted: Floats, seed: int, draws: int = 400) -> float:
    """Mean calibration error of a perfect forecaster with these predictions: labels drawn from them, `draws` times.

    So far is the error from 0 by chance alone; with 64 duels that is about 0.1.
    """
    won = np.random.default_rng(seed).random((draws, len(predicted))) < predicted
    return float(np.mean([expected_calibration_error(predicted, labels.astype(np.float64)) for labels in won]))


def measure_agreement(predicted: Floats, won: Floats) -> float:
    """Share of duels where prediction and outcome name the same winner; where either is one half, half agrees."""
    _check_shapes(predicted, won)
    return float(np.mean((1 + np.sign(predicted - 0.5) * np.sign(won - 0.5)) / 2))


def _check_shapes(predicted: Floats, won: Floats) -> None:
    if predicted.shape != won.shape or predicted.ndim != 1:
        raise ValueError(f"predicted has shape {predicted.shape} and won {won.shape}; expected (B,) for both")
    if not len(predicted):
        raise ValueError("predicted is empty: calibration needs at least one duel")
