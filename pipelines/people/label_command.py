"""`oatflow label`: give the questions of a waiting round to people, and put their answers into the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oatflow.components.errors import RefusedInput
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.oracles.settings import HumanSettings
from oatflow.components.people.annotations import Annotation, read_answers
from oatflow.components.people.missing_answers import MissingAnswers
from oatflow.components.people.questions import FORMS, Batch, to_jsonl
from oatflow.components.rounds.annotation_files import add_answers, read_batch, read_missing_answers
from oatflow.components.store.files import write_whole

from ..flags import Flag

FLAGS: list[Flag] = [
    ("--out", {"type": Path, "metavar": "DIR",
               "help": "folder for the page and the tables (default: HOME/labels/NAME-round-N)"}),
    ("--answers", {"type": Path, "nargs": "+", "metavar": "FILE", "default": [],
                   "help": "add the answers in these files: JSON Lines as the page gives them, CSV with duel_id, "
                   "annotator and verdict, or records that Argilla exported"}),
    ("--annotator", {"metavar": "NAME", "help": "who gave them, where the files do not say, or say it otherwise"}),
    ("--serve", {"action": "store_true", "help": "serve the page to this machine's browser, and take the answers"}),
    ("--port", {"type": int, "help": "port of the page (default: the same free one each time, if it can be had)"}),
]  # fmt: skip
MOST_BYTES = 64 * 2**20
"""The size limit of a file of answers."""


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What the user asked for: a folder with the questions, answers to add, or a served page that takes them."""

    out: Path | None = None
    answers: Sequence[Path] = ()
    annotator: str | None = None
    serve: bool = False
    port: int | None = None


def label_round(ledger: Ledger, experiment: str, home: Path, options: LabelOptions) -> int:
    """Write, add or serve, for the round that waits for labels. Raises `RefusedInput` if no round waits."""
    batch = find_waiting_batch(ledger, experiment)
    settings = HumanSettings.parse(ledger.experiment.settings.get("human", {}))
    if options.answers and options.serve:
        raise RefusedInput("serve, answers: give one of them; the page that is served takes answers by itself")
    if options.answers:
        print(f"{_add_files(ledger, batch, options)} new answers. {_describe_state(ledger, batch, settings)}")
    elif options.serve:
        from .label_server import serve_page

        serve_page(ledger, batch, settings, options.port)
        print(_describe_state(ledger, batch, settings))
    else:
        folder = options.out or home / "labels" / f"{experiment}-round-{batch.round}"
        write_questions(batch, folder)
        print(_explain_files(batch, experiment, folder, settings, read_missing_answers(ledger, batch.round, settings)))
    return 0


def find_waiting_batch(ledger: Ledger, experiment: str) -> Batch:
    """Return the questions of the next round. Raises `RefusedInput` if it has asked nothing or is labelled."""
    round_ = ledger.read_head().round + 1
    batch = read_batch(ledger, round_)
    if batch is None:
        oracle = ledger.experiment.settings.get("labeling", {}).get("preference_oracle", "simulated")
        why = "it has not asked yet: run it first" if oracle == "human" else f"preference_oracle is {oracle!r}"
        raise RefusedInput(f"experiment={experiment!r}: round {round_} does not wait for labels; {why}")
    if ledger.find_done(round_, "labeling") is not None:
        raise RefusedInput(f"experiment={experiment!r}: round {round_} is labelled already, and waits for nobody")
    return batch


def write_questions(batch: Batch, folder: Path) -> None:
    """Write the questions in all their forms; files of answers in the folder are left alone."""
    for name, form in FORMS.items():
        write_whole(folder / name, form(batch))
    write_whole(folder / "questions.jsonl", to_jsonl(batch.questions))


def _add_files(ledger: Ledger, batch: Batch, options: LabelOptions) -> int:
    """Add the answers of all files, or of none if one of them cannot be read."""
    annotations = [row for path in options.answers for row in _read_file(path, batch, options.annotator)]
    return add_answers(ledger, batch.round, annotations)


def _read_file(path: Path, batch: Batch, annotator: str | None) -> list[Annotation]:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RefusedInput(f"answers={str(path)!r}: cannot be read ({error.strerror})") from error
    if len(data) > MOST_BYTES:
        raise RefusedInput(f"answers={str(path)!r}: larger than {MOST_BYTES >> 20} MiB; is it a file of answers?")
    return read_answers(data, str(path), batch.shown, annotator)


def _describe_state(ledger: Ledger, batch: Batch, settings: HumanSettings) -> str:
    missing = read_missing_answers(ledger, batch.round, settings)
    if missing.by_duel:
        return f"Round {batch.round}: {missing}."
    return f"Round {batch.round}: {missing}; run `oatflow align` again, or let the schedule carry on."


def _explain_files(
    batch: Batch, experiment: str, folder: Path, settings: HumanSettings, missing: MissingAnswers
) -> str:
    people = "one person" if settings.human_annotators == 1 else f"{settings.human_annotators} people"
    return "\n".join([
        f"Round {batch.round}: {missing}; each needs {people}.",
        f"{folder / 'page.html'}   open it in a browser; it needs no network and gives a file of answers at the end",
        f"{folder / 'questions.csv'}   or fill in annotator and verdict (left, right, tie, skip) in a spreadsheet",
        f"{folder / 'questions.argilla.jsonl'}   or import these records into Argilla, and export them with responses",
        f"Then: oatflow label {experiment} --answers FILE ...",
        f"Or label right here: oatflow label {experiment} --serve",
    ])  # fmt: skip
