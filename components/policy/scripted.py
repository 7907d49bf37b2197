"""A stand-in for training that needs no model: a policy whose bytes depend on its parent and its preferences."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path

from ..ledger.done import Done
from ..ledger.ledger import Ledger
from ..ledger.owner import process_start
from ..records.records import Preference
from ..records.table import from_parts


def train_scripted(ledger: Ledger, round_: int, run: str) -> Done:
    """Make the round's policy, or adopt it."""
    with ledger.step(round_, "policy", run) as step:
        if step.done is not None:
            return step.done
        begun = time.time()
        plan, parts = ledger.plan(round_), step.read_parts("labeling", "preferences")
        preferences = from_parts(parts, Preference, "preferences")
        digest = hashlib.sha256(plan.policy.digest.encode())
        for part in (*parts, *(row.prompt_id.encode() for row in plan.outside)):
            digest.update(part)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "policy.txt").write_text(digest.hexdigest())
            step.upload_folder("model", Path(folder))
        unlabelled = sum(preference.chosen is None for preference in preferences)
        outside = sum(row.chosen != row.rejected for row in plan.outside)
        counts = {"pairs": len(preferences) - unlabelled + outside, "unlabelled": unlabelled}
        counts |= {"outside_pairs": outside} if plan.outside else {}
        return step.mark_done(counts, {"startup": begun - process_start(), "work": time.time() - begun})
