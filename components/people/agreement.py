"""Measures how far people agree: Krippendorff's alpha for nominal values, which allows missing answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from krippendorff import alpha

from .annotations import Annotation

SAMPLES = 1_000
"""Resamples behind an interval."""


def agreement_facts(answers: Mapping[str, Sequence[Annotation]], seed: int) -> dict[str, float]:
    """Return how far people agree, by the names of metrics; empty where alpha is not defined.

    `krippendorff_alpha`, its 95% interval from `krippendorff_low` to `krippendorff_high` where there is one, and
    `agreed_upon`: how many duels have at least two verdicts.
    """
    units = verdicts_on(answers)
    agreement = nominal_alpha(units)
    if agreement is None:
        return {}
    found = {"krippendorff_alpha": agreement, "agreed_upon": len(_keep_pairable(units))}
    between = alpha_interval(units, seed)
    return {**found, "krippendorff_low": between[0], "krippendorff_high": between[1]} if between else found


def verdicts_on(answers: Mapping[str, Sequence[Annotation]]) -> list[list[str]]:
    """Return the verdicts on each duel. A skip is not a verdict."""
    return [[row.verdict for row in rows if row.verdict != "skip"] for rows in answers.values()]


def nominal_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Return alpha of the values of each unit: 1 is perfect agreement, 0 is chance.

    None where it is not defined: no unit has two values, or all values are the same. Krippendorff, "Computing
    Krippendorff's Alpha-Reliability" (2011), part C: any number of observers, missing data.
    """
    counts = _count_values(_keep_pairable(units))
    return None if counts.shape[1] < 2 else float(alpha(value_counts=counts, level_of_measurement="nominal"))


def alpha_interval(units: Sequence[Sequence[str]], seed: int) -> tuple[float, float] | None:
    """95% percentile interval of `nominal_alpha` over units drawn with replacement (Efron 1979).

    None if there are at most two units, or if all draws give the same value.
    """
    pairable = _keep_pairable(units)
    if len(pairable) <= 2:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(pairable), size=(SAMPLES, len(pairable)))
    # A draw in which all values are the same has no alpha, and is left out.
    found = [value for row in drawn if (value := nominal_alpha([pairable[place] for place in row])) is not None]
    if not found or min(found) == max(found):
        return None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _keep_pairable(units: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Return the units with at least two values; a single value contains no agreement."""
    return [values for values in units if len(values) > 1]


def _count_values(units: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
    """Count how often each unit has each value: (units, distinct values)."""
    counted = [Counter(values) for values in units]
    domain = sorted(set().union(*counted))
    return np.array([[unit[value] for value in domain] for unit in counted], dtype=np.int64).reshape(
        len(counted), len(domain)
    )
