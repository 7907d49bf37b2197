"""Exact tests and quantiles, from scipy. Pure.

Each function imports what it needs: most steps of a round compute none, and scipy takes a while to import. scipy.stats
has the same numbers, but takes two seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np


def sign_test(wins: int, losses: int) -> float | None:
    """Return the two-sided exact p-value of wins against losses, without the ties; None where all are ties."""
    from scipy.special import bdtr

    decided = wins + losses
    return min(1.0, 2 * float(bdtr(min(wins, losses), decided, 0.5))) if decided else None


def at_least(number: int, whole: int, probability: float) -> float:
    """Return the chance that so many or more of `whole` independent cases occur."""
    from scipy.special import bdtr

    return float(bdtr(whole - number, whole, 1 - probability)) if number <= whole else 0.0


def at_most(number: int, whole: int, probability: float) -> float:
    """Return the chance that so many or fewer of `whole` independent cases occur."""
    from scipy.special import bdtr

    return float(bdtr(number, whole, probability))


def student_quantile(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t distribution with this many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def paired_test(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of Student's test that independent differences have mean 0; None of a single one."""
    from scipy.special import stdtr

    n, mean = len(differences), float(np.mean(differences))
    if n < 2:
        return None
    error = float(np.std(differences, ddof=1)) / sqrt(n)
    if not error:
        return 0.0 if mean else 1.0
    return 2 * float(stdtr(n - 1, -abs(mean) / error))


def reject_together(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Return which of several hypotheses are rejected, so that a true one is with probability `level` at most.

    Holm (1979): the smallest p-value is compared with level / number, the next with level / (number - 1), and so on.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    rejected = [False] * len(p_values)
    for rank, place in enumerate(order):
        if p_values[place] > level / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected
