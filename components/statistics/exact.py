"""Exact tests and quantiles, from scipy. Pure."""

from __future__ import annotations

# scipy.stats has the same numbers, but takes two seconds to import.
from scipy.special import bdtr, stdtrit


def sign_test(wins: int, losses: int) -> float | None:
    """Return the two-sided exact p-value of wins against losses, without the ties; None where all are ties."""
    decided = wins + losses
    return min(1.0, 2 * float(bdtr(min(wins, losses), decided, 0.5))) if decided else None


def at_least(number: int, whole: int, probability: float) -> float:
    """Return the chance that so many or more of `whole` independent cases occur."""
    return float(bdtr(whole - number, whole, 1 - probability)) if number <= whole else 0.0


def at_most(number: int, whole: int, probability: float) -> float:
    """Return the chance that so many or fewer of `whole` independent cases occur."""
    return float(bdtr(number, whole, probability))


def student_quantile(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t distribution with this many degrees of freedom."""
    return float(stdtrit(freedom, 0.975))
