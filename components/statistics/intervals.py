"""Estimates, and intervals that have a closed form. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

Z = 1.959964
"""Standard deviations on either side of the mean that hold 95% of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95% confidence interval."""

    value: float
    low: float
    high: float


def normal_interval(mean: float, deviation: float, cases: int) -> tuple[float, float]:
    """Return the 95% interval of a mean over independent cases from their standard deviation."""
    half = Z * deviation / sqrt(cases)
    return mean - half, mean + half


def wilson_interval(share: float, cases: int) -> tuple[float, float]:
    """Return the 95% interval of a share of independent cases (Wilson 1927).

    scipy's takes whole numbers of successes; here ties count one half, and recorded facts keep their last digit.
    """
    weight = 1 / (1 + Z * Z / cases)
    centre = weight * (share + Z * Z / (2 * cases))
    half = weight * Z * sqrt(share * (1 - share) / cases + (Z / (2 * cases)) ** 2)
    # None or all of the cases: that end is exact, and rounding must not put it beyond the share.
    return 0.0 if share == 0 else max(0.0, centre - half), 1.0 if share == 1 else min(1.0, centre + half)
