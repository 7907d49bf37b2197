"""Do people agree? Krippendorff's alpha (nominal), where nobody has to have answered everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from krippendorff import alpha

from .annotations import Annotation


def krippendorff_alpha(answers: Mapping[str, Sequence[Annotation]]) -> float | None:
    """Return the agreement over the verdicts on each duel: 1 is perfect, 0 is what chance gives. A skip is no verdict.

    None where it is not defined: no duel has two verdicts, or all verdicts are the same.
    """
    return nominal_alpha([[row.verdict for row in rows if row.verdict != "skip"] for rows in answers.values()])


def nominal_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Return alpha of the values that each unit was given, or None where it is not defined.

    Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), part C: any number of observers, missing data.
    """
    # A value without a second one to compare it with says nothing of agreement.
    pairable = [Counter(values) for values in units if len(values) > 1]
    domain = sorted(set().union(*pairable))
    if len(domain) < 2:
        return None
    counts = np.array([[unit[value] for value in domain] for unit in pairable])
    return float(alpha(value_counts=counts, level_of_measurement="nominal"))
