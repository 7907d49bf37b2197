"""Alarms of a round's labels: what it paid for teaches nothing, or cannot be trusted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..records.records import Preference
from ..statistics.label_checks import check_labels, read_label_counts

ALARMS = "alarms"
"""The fact of a labeling step that lists what is wrong with its labels; it is there only where something is."""


def count_answers(preferences: Sequence[Preference]) -> dict[str, int]:
    """Count the pairs to learn from, and which of a duel's answers the oracle preferred."""
    said = [row.first_wins for row in preferences if row.is_answer and not row.undecided and row.first_wins is not None]
    return {
        "learnable": sum(row.chosen is not None for row in preferences),
        "first_wins": sum(first_wins > 0.5 for first_wins in said),
        "second_wins": sum(first_wins < 0.5 for first_wins in said),
    }


def find_alarms(counts: Mapping[str, Any], facts: Mapping[str, Any], undecided_limit: float) -> dict[str, list[str]]:
    """Return the fact ALARMS, a sentence for each alarm, from what the labeling step counted and measured."""
    found = check_labels(read_label_counts({**facts, **counts}), undecided_limit)
    sentences = [f"{alarm.sentence} Run {alarm.check}." if alarm.check else alarm.sentence for alarm in found]
    return {ALARMS: sentences} if sentences else {}
