"""Duels as questions to people: a page to label in, tables for spreadsheets and programs, records for Argilla.

Which response stands on the left is drawn for each duel, so that a liking for one side averages out. Page, CSV and
records of Argilla do not say which it was. All are the same bytes whenever they are made.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import RecordError
from ..records.records import Duel, Side
from ..seeds import derive
from .annotations import QUESTION, Shown

COLUMNS = ("duel_id", "prompt", "response_left", "response_right", "questions", "annotator", "verdict")
"""Of the CSV table; the last two are for people to fill in."""
_MARK = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class Question:
    """A duel as people see it. `left`: which of the duel's responses stands on the left."""

    duel_id: str
    prompt: str
    response_left: str
    response_right: str
    left: Side


@dataclass(frozen=True)
class Batch:
    """What a round asks people about."""

    experiment: str
    round: int
    guideline: str
    questions: tuple[Question, ...]

    @cached_property
    def digest(self) -> str:
        """The name of these questions; it stands in every answer that the page gives."""
        return hashlib.sha256(to_jsonl(self.questions)).hexdigest()[:12]

    @cached_property
    def shown(self) -> Shown:
        """What answers are read with."""
        return Shown({question.duel_id: question.left for question in self.questions}, self.digest)


def questions_of(duels: Iterable[Duel], seed: int, round_: int) -> tuple[Question, ...]:
    """Ask each duel once, in the order given, its sides drawn with a seed of its own."""
    return tuple(question(duel, seed, round_) for duel in {duel.duel_id: duel for duel in duels}.values())


def question(duel: Duel, seed: int, round_: int) -> Question:
    """Put a duel to people."""
    if derive(seed, round_, duel.duel_id, "side") % 2:
        return Question(duel.duel_id, duel.prompt, duel.second, duel.first, "second")
    return Question(duel.duel_id, duel.prompt, duel.first, duel.second, "first")


def to_jsonl(questions: Sequence[Question]) -> bytes:
    """Write questions, one a line, with what stands on the left."""
    return _lines({name: getattr(row, name) for name in Question.__slots__} for row in questions)


def from_jsonl(data: bytes, name: str) -> tuple[Question, ...]:
    """Read what `to_jsonl` wrote."""
    try:
        return tuple(Question(**json.loads(line)) for line in data.decode().split("\n") if line)
    except (ValueError, TypeError) as error:
        raise RecordError(f"{name}: not the questions of a round ({error})") from error


def to_csv(batch: Batch) -> bytes:
    """Write a table to fill in: annotator, and a verdict of left, right, tie or skip."""
    buffer = io.StringIO(newline="")
    table = csv.writer(buffer)
    table.writerow(COLUMNS)
    for row in batch.questions:
        texts = map(_inert, (row.prompt, row.response_left, row.response_right))
        table.writerow([row.duel_id, *texts, batch.digest, "", ""])
    # With a byte order mark, spreadsheets know it for UTF-8.
    return buffer.getvalue().encode("utf-8-sig")


def to_argilla(batch: Batch) -> bytes:
    """Write records for Argilla 2, one a line, as `rg.Record.from_dict` takes them; README.md says how to import them.

    Their data set has the fields prompt, response_left and response_right, a label question "preference" (left, right,
    tie, skip), and the metadata questions (terms) and round (integer).
    """
    return _lines(
        {
            "id": row.duel_id,
            "fields": {
                "prompt": row.prompt, "response_left": row.response_left, "response_right": row.response_right,
            },
            "metadata": {"questions": batch.digest, "round": batch.round},
            "suggestions": {},
            "responses": {QUESTION: []},
            "vectors": {},
        }
        for row in batch.questions
    )  # fmt: skip


def to_page(batch: Batch) -> bytes:
    """Return the page: one file without a network, whose answers are kept by the browser until they are sent."""
    style, script = (_shipped(f"labelling.{kind}") for kind in ("css", "js"))
    parts = {
        "style": style,
        "script": script,
        "policy": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'",
        "data": _embedded(batch),
    }
    return _MARK.sub(lambda mark: parts[mark[1]], _shipped("labelling.html")).encode()


def _embedded(batch: Batch) -> str:
    """Return what the page shows as JSON that cannot end its script element, nor be taken for markup."""
    data = {
        "experiment": batch.experiment,
        "round": batch.round,
        "guideline": batch.guideline,
        "digest": batch.digest,
        "questions": [
            {"id": row.duel_id, "prompt": row.prompt, "left": row.response_left, "right": row.response_right}
            for row in batch.questions
        ],
    }
    return json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _inert(text: str) -> str:
    """Keep a spreadsheet from taking a response for a formula, which it would run."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _shipped(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _lines(rows: Iterable[dict[str, object]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
