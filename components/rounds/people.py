"""Asking people: questions go into the ledger, answers come from it, and a run may end before they are there.

Every file of answers is written once under a name of its content, by whoever has it (`oatflow label`): nobody needs the
round's claim for that. What one person said of one duel stands.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .. import progress
from ..errors import LedgerError, ObjectExists, ObjectNotFound, RefusedInput, WaitingForLabels
from ..ledger import layout
from ..ledger.ledger import Ledger
from ..ledger.step import Step
from ..oracles.annotations import Annotation, as_shown, from_jsonl, to_jsonl
from ..oracles.human import lacking
from ..oracles.oracle import Say
from ..oracles.questions import Batch, questions_of, to_argilla, to_csv, to_page
from ..oracles.questions import from_jsonl as read_questions
from ..oracles.questions import to_jsonl as write_questions
from ..oracles.settings import HumanSettings
from ..records.records import Duel
from ..records.sealed import digest_of

ROOM = "labeling"
QUESTIONS = "questions/questions.jsonl"
FORMS: Mapping[str, Callable[[Batch], bytes]] = {
    "page.html": to_page,
    "questions.csv": to_csv,
    "questions.argilla.jsonl": to_argilla,
}
"""What people may answer in, besides programs that read the questions themselves."""
ANNOTATIONS = "annotations/"
LOOK_EVERY = 10.0
"""Seconds between two looks for answers."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far people have come: the duels that were asked, and for each that is open how many people it lacks."""

    asked: int
    lacking: Mapping[str, int]

    def __str__(self) -> str:
        if not self.lacking:
            return f"all {self.asked} duels are answered"
        return f"{len(self.lacking)} of {self.asked} duels lack {sum(self.lacking.values())} answers of people"


def collect_answers(
    step: Step,
    duels: Sequence[Duel],
    settings: HumanSettings,
    say: Say | None = None,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, list[Annotation]]:
    """Ask people about the duels, wait for a while, and return all annotations by duel.

    Raises `WaitingForLabels` if some duel still lacks people; then the questions are in the ledger, and so is every
    answer that came.
    """
    if not duels:
        return {}
    batch = ask(step, duels)
    ends, told = monotonic() + settings.human_wait_minutes * 60, say or _tell(step.round)
    seen = ""
    while True:
        answers = by_duel(read_annotations(step.ledger, step.round), (duel.duel_id for duel in duels))
        stands = standing(answers, settings)
        if not stands.lacking:
            return _noted(step, answers)
        if str(stands) != seen:
            told(seen := str(stands))
        left = ends - monotonic()
        if left <= 0:
            raise WaitingForLabels(f"round {step.round} is waiting for labels: {stands}. {what_to_do(batch)}")
        sleep(min(LOOK_EVERY, left))


def ask(step: Step, duels: Sequence[Duel]) -> Batch:
    """Put the questions into the ledger, in all their forms; those that an earlier attempt wrote stand."""
    asked = step.find_output(QUESTIONS)
    if asked is None:
        batch = _batch(step.ledger, step.round, write_questions(questions_of(duels, step.ledger.seed, step.round)))
        for name, form in FORMS.items():
            step.write_output(f"questions/{name}", form(batch))
        # Last, so that who finds it finds the others.
        asked = step.write_output(QUESTIONS, write_questions(batch.questions))
    for name in FORMS:
        step.find_output(f"questions/{name}")
    batch = _batch(step.ledger, step.round, asked)
    new = [duel.duel_id for duel in duels if duel.duel_id not in batch.shown.left]
    if new:
        raise LedgerError(
            f"round {step.round}: people were asked about {len(batch.questions)} duels, and {len(new)} others want an "
            f"answer now, {new[0]} first; the settings of a round that has asked must stay as they are"
        )
    return batch


def asked_of(ledger: Ledger, round_: int) -> Batch | None:
    """Return what the round asks people, or None where it asks nothing, or not yet."""
    try:
        data = ledger.store.get(layout.output_key(round_, ROOM, QUESTIONS)).data
    except ObjectNotFound:
        return None
    return _batch(ledger, round_, data)


def is_answered(ledger: Ledger, round_: int, settings: HumanSettings) -> bool:
    """Whether everything that the round asks people has its answers."""
    return not stands_at(ledger, round_, settings).lacking


def stands_at(ledger: Ledger, round_: int, settings: HumanSettings) -> Standing:
    """Tell how far people have come with what the round asks."""
    batch = asked_of(ledger, round_)
    wanted = (question.duel_id for question in batch.questions) if batch else ()
    return standing(by_duel(read_annotations(ledger, round_), wanted), settings)


def standing(answers: Mapping[str, Sequence[Annotation]], settings: HumanSettings) -> Standing:
    """Tell which duels lack people. Pure."""
    short = {duel: lacking(rows, settings.human_annotators) for duel, rows in answers.items()}
    return Standing(len(answers), {duel: people for duel, people in short.items() if people})


def read_annotations(ledger: Ledger, round_: int) -> list[Annotation]:
    """Return what people said in a round, in the order of the files' names, one verdict a person and duel.

    Where two files that were added in the same moment contradict each other, the one that is named first counts.
    """
    rows: dict[tuple[str, str], Annotation] = {}
    for entry in ledger.store.list(layout.output_key(round_, ROOM, ANNOTATIONS)):
        for row in from_jsonl(ledger.store.get(entry.key).data, entry.key):
            rows.setdefault((row.duel_id, row.annotator), row)
    return list(rows.values())


def by_duel(annotations: Iterable[Annotation], duels: Iterable[str]) -> dict[str, list[Annotation]]:
    """Group annotations by the duels that are named, in order; in each by the person's name."""
    found: dict[str, list[Annotation]] = {duel: [] for duel in duels}
    for row in sorted(annotations, key=lambda row: row.annotator):
        if row.duel_id in found:
            found[row.duel_id].append(row)
    return found


def add_answers(ledger: Ledger, round_: int, annotations: Sequence[Annotation]) -> int:
    """Put annotations into the ledger, and return how many of them are new; what is there already is no error.

    Raises `RefusedInput`, and adds nothing, for a duel that was not asked, and for a person who says something else
    of a duel than before.
    """
    batch = asked_of(ledger, round_)
    if batch is None:
        raise RefusedInput(f"round {round_} has asked people nothing")
    if ledger.find_done(round_, ROOM) is not None:
        raise RefusedInput(f"round {round_} is labelled already; answers to it change nothing any more")
    known = {(row.duel_id, row.annotator): row for row in read_annotations(ledger, round_)}
    new: dict[tuple[str, str], Annotation] = {}
    for row in annotations:
        key = row.duel_id, row.annotator
        _check(row, batch, known.get(key) or new.get(key))
        if key not in known:
            new[key] = row
    for annotator in sorted({row.annotator for row in new.values()}):
        _put(ledger, round_, annotator, [row for row in new.values() if row.annotator == annotator])
    return len(new)


def what_to_do(batch: Batch) -> str:
    """Say how the answers get into the ledger."""
    return (
        f"`oatflow label {batch.experiment}` writes the page to label in, `oatflow label {batch.experiment} --serve` "
        "opens it on this machine; once every duel is answered, the next run carries on"
    )


def _check(row: Annotation, batch: Batch, before: Annotation | None) -> None:
    if row.duel_id not in batch.shown.left:
        raise RefusedInput(f"duel_id={row.duel_id!r}: not one of the {len(batch.questions)} duels that were asked")
    if before is not None and before.verdict != row.verdict:
        raise RefusedInput(
            f"duel {row.duel_id}: {row.annotator!r} said {as_shown(before)!r} before and {as_shown(row)!r} now; what "
            "was said once stands. If this is somebody else, use another name; otherwise take out the line"
        )


def _put(ledger: Ledger, round_: int, annotator: str, rows: Sequence[Annotation]) -> None:
    data = to_jsonl(sorted(rows, key=lambda row: row.duel_id))
    # Names that look alike as part of a key are told apart by the digest.
    name = f"{re.sub('[^a-z0-9]+', '-', annotator).strip('-') or 'person'}-{digest_of(data)[:12]}.jsonl"
    try:
        ledger.store.put_if_absent(layout.output_key(round_, ROOM, ANNOTATIONS + name), data)
    except ObjectExists:
        # Named by its content: another process added the same.
        return


def _noted(step: Step, answers: dict[str, list[Annotation]]) -> dict[str, list[Annotation]]:
    """Make the files of answers outputs of the step, so that its mark holds their digests."""
    prefix = layout.output_key(step.round, ROOM, "")
    for entry in step.ledger.store.list(prefix + ANNOTATIONS):
        step.note_output(entry.key.removeprefix(prefix))
    return answers


def _batch(ledger: Ledger, round_: int, questions: bytes) -> Batch:
    guideline = HumanSettings.parse(ledger.experiment.settings.get("human", {})).human_guideline
    return Batch(ledger.name, round_, guideline, read_questions(questions, layout.output_key(round_, ROOM, QUESTIONS)))


def _tell(round_: int) -> Say:
    return lambda line: progress.report_event(layout.STEPS[ROOM], round_, "waits", why=line)
