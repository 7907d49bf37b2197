"""How far a share of counted cases can be trusted. Pure."""

from __future__ import annotations

from math import sqrt

Z = 1.959964
"""Standard deviations on either side of the mean that hold 95% of a normal distribution."""


def normal_interval(mean: float, deviation: float, cases: int) -> tuple[float, float]:
    """95% interval of a mean over independent cases with this standard deviation, as the normal law has it."""
    half = Z * deviation / sqrt(cases)
    return mean - half, mean + half


def wilson_interval(share: float, cases: int) -> tuple[float, float]:
    """95% interval of a share of independent cases, each of which counts or does not (Wilson 1927)."""
    weight = 1 / (1 + Z * Z / cases)
    centre = weight * (share + Z * Z / (2 * cases))
    half = weight * Z * sqrt(share * (1 - share) / cases + (Z / (2 * cases)) ** 2)
    # None or all of the cases: that end is exact, and rounding must not put it beyond the share.
    return 0.0 if share == 0 else max(0.0, centre - half), 1.0 if share == 1 else min(1.0, centre + half)
