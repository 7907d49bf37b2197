"""Counts which answers of people a round still lacks, and checks those that arrive. Nothing here reads the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import RefusedInput
from ..oracles.settings import HumanSettings
from .annotations import Annotation, as_shown
from .questions import Batch


@dataclass(frozen=True, slots=True)
class MissingAnswers:
    """How many duels were asked, and how many people each unfinished duel still lacks."""

    asked: int
    by_duel: Mapping[str, int]

    def __str__(self) -> str:
        if not self.by_duel:
            return f"all {self.asked} duels are answered"
        return f"{len(self.by_duel)} of {self.asked} duels lack {sum(self.by_duel.values())} answers of people"


def find_missing_answers(answers: Mapping[str, Sequence[Annotation]], settings: HumanSettings) -> MissingAnswers:
    """Return which of these duels lack answers."""
    counts = {duel: count_missing_people(rows, settings.human_annotators) for duel, rows in answers.items()}
    return MissingAnswers(len(answers), {duel: count for duel, count in counts.items() if count})


def count_missing_people(annotations: Sequence[Annotation], annotators: int) -> int:
    """Count the people who have not answered yet. A person who skipped a duel has answered."""
    return max(0, annotators - len({row.annotator for row in annotations}))


def group_by_duel(annotations: Iterable[Annotation], duels: Iterable[str]) -> dict[str, list[Annotation]]:
    """Group the annotations of the named duels, in the order of the names; each group is sorted by annotator."""
    found: dict[str, list[Annotation]] = {duel: [] for duel in duels}
    for row in sorted(annotations, key=lambda row: row.annotator):
        if row.duel_id in found:
            found[row.duel_id].append(row)
    return found


def select_new_answers(
    annotations: Sequence[Annotation], known: Sequence[Annotation], batch: Batch
) -> dict[str, list[Annotation]]:
    """Return the annotations that are not known yet, by annotator.

    Raises `RefusedInput` for a duel that was not asked, and for a person who gives a second, different verdict.
    """
    before = {(row.duel_id, row.annotator): row for row in known}
    new: dict[tuple[str, str], Annotation] = {}
    for row in annotations:
        key = row.duel_id, row.annotator
        _check_answer(row, batch, before.get(key) or new.get(key))
        if key not in before:
            new[key] = row
    annotators = sorted({row.annotator for row in new.values()})
    return {name: [row for row in new.values() if row.annotator == name] for name in annotators}


def explain_labelling(batch: Batch) -> str:
    """Return a sentence on how people give their answers."""
    return (
        f"`oatflow label {batch.experiment}` writes the page to label in, `oatflow label {batch.experiment} --serve` "
        "opens it on this machine; once every duel is answered, the next run carries on"
    )


def _check_answer(row: Annotation, batch: Batch, before: Annotation | None) -> None:
    if row.duel_id not in batch.shown.left:
        raise RefusedInput(f"duel_id={row.duel_id!r}: not one of the {len(batch.questions)} duels that were asked")
    if before is not None and before.verdict != row.verdict:
        raise RefusedInput(
            f"duel {row.duel_id}: {row.annotator!r} said {as_shown(before)!r} before and {as_shown(row)!r} now; what "
            "was said once stands. If this is somebody else, use another name; otherwise take out the line"
        )
