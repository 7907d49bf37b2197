"""A stand-in for training that needs no model: a policy whose bytes depend on its parent and its preferences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..records.records import Preference, Prompt


def write_scripted_policy(folder: Path, parent: str, inputs: Iterable[bytes]) -> None:
    """Write a policy, named by the digest of the policy before it and of everything that it learned from."""
    digest = hashlib.sha256(parent.encode())
    for data in inputs:
        digest.update(data)
    (folder / "policy.txt").write_text(digest.hexdigest())


def count_pairs(preferences: Sequence[Preference], outside: Sequence[Prompt]) -> dict[str, int]:
    """Return how many pairs there are to learn from, and how many duels have no label."""
    unlabelled = sum(preference.chosen is None for preference in preferences)
    made_elsewhere = sum(row.chosen != row.rejected for row in outside)
    counts = {"pairs": len(preferences) - unlabelled + made_elsewhere, "unlabelled": unlabelled}
    return counts | ({"outside_pairs": made_elsewhere} if outside else {})
