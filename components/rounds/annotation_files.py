"""The files of questions and answers that a round exchanges with people through the ledger.

`oatflow label` adds answers without the round's claim: each file is written once, under a name made from its content.
A person's first verdict on a duel is final.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from .. import progress
from ..errors import LedgerError, ObjectExists, ObjectNotFound, RefusedInput, WaitingForLabels
from ..ledger import layout
from ..ledger.ledger import Ledger
from ..ledger.step import Step
from ..oracles.oracle import Say
from ..oracles.settings import HumanSettings
from ..people.annotations import Annotation, from_jsonl, to_jsonl
from ..people.missing_answers import (
    MissingAnswers,
    explain_labelling,
    find_missing_answers,
    group_by_duel,
    select_new_answers,
)
from ..people.questions import FORMS, Batch, make_questions
from ..people.questions import from_jsonl as read_questions
from ..people.questions import to_jsonl as write_questions
from ..records.records import Duel
from ..records.sealed import digest_of

ROOM = "labeling"
QUESTIONS = "questions/questions.jsonl"
ANNOTATIONS = "annotations/"
POLL_SECONDS = 10.0


def collect_answers(
    step: Step,
    duels: Sequence[Duel],
    settings: HumanSettings,
    say: Say | None = None,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, list[Annotation]]:
    """Ask people about the duels, wait for a while, and return all annotations by duel.

    Raises:
        WaitingForLabels: Some duel still lacks answers. The questions and all answers so far are in the ledger.
    """
    if not duels:
        return {}
    batch = ask_people(step, duels)
    deadline, report = monotonic() + settings.human_wait_minutes * 60, say or _make_reporter(step.round)
    reported = ""
    while True:
        annotations = read_annotations(step.ledger, step.round)
        answers = group_by_duel(annotations, (duel.duel_id for duel in duels))
        missing = find_missing_answers(answers, settings)
        if not missing.by_duel:
            _note_outputs(step)
            return answers
        if str(missing) != reported:
            report(reported := str(missing))
        left = deadline - monotonic()
        if left <= 0:
            raise WaitingForLabels(f"round {step.round} is waiting for labels: {missing}. {explain_labelling(batch)}")
        sleep(min(POLL_SECONDS, left))


def ask_people(step: Step, duels: Sequence[Duel]) -> Batch:
    """Write the questions into the ledger, in all their forms, unless an earlier attempt did."""
    asked = step.find_output(QUESTIONS)
    if asked is None:
        questions = write_questions(make_questions(duels, step.ledger.seed, step.round))
        batch = _make_batch(step.ledger, step.round, questions)
        for name, form in FORMS.items():
            step.write_output(f"questions/{name}", form(batch))
        # The last file: where it exists, the others exist.
        asked = step.write_output(QUESTIONS, questions)
    for name in FORMS:
        step.find_output(f"questions/{name}")
    batch = _make_batch(step.ledger, step.round, asked)
    new = [duel.duel_id for duel in duels if duel.duel_id not in batch.shown.left]
    if new:
        raise LedgerError(
            f"round {step.round}: people were asked about {len(batch.questions)} duels, and {len(new)} others want an "
            f"answer now, {new[0]} first; the settings of a round that has asked must stay as they are"
        )
    return batch


def read_batch(ledger: Ledger, round_: int) -> Batch | None:
    """Return the questions of the round to people, or None if it has not asked any."""
    try:
        data = ledger.store.get(layout.output_key(round_, ROOM, QUESTIONS)).data
    except ObjectNotFound:
        return None
    return _make_batch(ledger, round_, data)


def is_answered(ledger: Ledger, round_: int, settings: HumanSettings) -> bool:
    """Whether people have answered every question of the round."""
    return not read_missing_answers(ledger, round_, settings).by_duel


def read_missing_answers(ledger: Ledger, round_: int, settings: HumanSettings) -> MissingAnswers:
    """Return which questions of the round still lack answers."""
    batch = read_batch(ledger, round_)
    asked = (question.duel_id for question in batch.questions) if batch else ()
    return find_missing_answers(group_by_duel(read_annotations(ledger, round_), asked), settings)


def read_annotations(ledger: Ledger, round_: int) -> list[Annotation]:
    """Return the annotations of a round, in the order of the files' names, one verdict per person and duel.

    If two files that were added at the same time contradict each other, the first name wins.
    """
    rows: dict[tuple[str, str], Annotation] = {}
    for entry in ledger.store.list(layout.output_key(round_, ROOM, ANNOTATIONS)):
        for row in from_jsonl(ledger.store.get(entry.key).data, entry.key):
            rows.setdefault((row.duel_id, row.annotator), row)
    return list(rows.values())


def add_answers(ledger: Ledger, round_: int, annotations: Sequence[Annotation]) -> int:
    """Write annotations into the ledger, and return how many of them are new; adding one twice is no error.

    Raises:
        RefusedInput: A duel was not asked, or a person gave another verdict on it before. Nothing is added.
    """
    batch = read_batch(ledger, round_)
    if batch is None:
        raise RefusedInput(f"round {round_} has asked people nothing")
    if ledger.find_done(round_, ROOM) is not None:
        raise RefusedInput(f"round {round_} is labelled already; answers to it change nothing any more")
    new = select_new_answers(annotations, read_annotations(ledger, round_), batch)
    for annotator, rows in new.items():
        _write_annotations(ledger, round_, annotator, rows)
    return sum(map(len, new.values()))


def _write_annotations(ledger: Ledger, round_: int, annotator: str, rows: Sequence[Annotation]) -> None:
    data = to_jsonl(sorted(rows, key=lambda row: row.duel_id))
    # Different people may get the same prefix; the digest keeps their files apart.
    name = f"{re.sub('[^a-z0-9]+', '-', annotator).strip('-') or 'person'}-{digest_of(data)[:12]}.jsonl"
    try:
        ledger.store.put_if_absent(layout.output_key(round_, ROOM, ANNOTATIONS + name), data)
    except ObjectExists:
        # The name is made from the content: another process added the same.
        return


def _note_outputs(step: Step) -> None:
    """Make the files of answers outputs of the step, so that its done mark records their digests."""
    prefix = layout.output_key(step.round, ROOM, "")
    for entry in step.ledger.store.list(prefix + ANNOTATIONS):
        step.note_output(entry.key.removeprefix(prefix))


def _make_batch(ledger: Ledger, round_: int, questions: bytes) -> Batch:
    guideline = HumanSettings.parse(ledger.experiment.settings.get("human", {})).human_guideline
    rows = read_questions(questions, layout.output_key(round_, ROOM, QUESTIONS))
    return Batch(ledger.name, round_, guideline, rows)


def _make_reporter(round_: int) -> Say:
    return lambda line: progress.report_event(layout.STEPS[ROOM], round_, "waits", why=line)
