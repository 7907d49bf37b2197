"""Duels as questions to people: a page to label in, tables for spreadsheets and programs, records for Argilla.

The response on the left is drawn for each duel, so that a preference for one side averages out. The page, the CSV and
the Argilla records do not show which one it is. The same questions always give the same bytes.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import RecordError
from ..records.records import Duel, Side
from ..seeds import derive
from .annotations import QUESTION, Shown

COLUMNS = ("duel_id", "prompt", "response_left", "response_right", "questions", "annotator", "verdict")
"""The columns of the CSV table; people fill in the last two."""
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class Question:
    """A duel as people see it. `left`: which of the duel's responses is on the left."""

    duel_id: str
    prompt: str
    response_left: str
    response_right: str
    left: Side


@dataclass(frozen=True)
class Batch:
    """The questions of one round to people."""

    experiment: str
    round: int
    guideline: str
    questions: tuple[Question, ...]

    @cached_property
    def digest(self) -> str:
        """The digest that identifies these questions; every answer from the page contains it."""
        return hashlib.sha256(to_jsonl(self.questions)).hexdigest()[:12]

    @cached_property
    def shown(self) -> Shown:
        """What a reader of answers needs to know of the questions."""
        return Shown({question.duel_id: question.left for question in self.questions}, self.digest)


def make_questions(duels: Iterable[Duel], seed: int, round_: int) -> tuple[Question, ...]:
    """Make one question of each distinct duel, in order; each draws its sides from a seed of its own."""
    return tuple(make_question(duel, seed, round_) for duel in {duel.duel_id: duel for duel in duels}.values())


def make_question(duel: Duel, seed: int, round_: int) -> Question:
    """Make a question of a duel."""
    if derive(seed, round_, duel.duel_id, "side") % 2:
        return Question(duel.duel_id, duel.prompt, duel.second, duel.first, "second")
    return Question(duel.duel_id, duel.prompt, duel.first, duel.second, "first")


def to_jsonl(questions: Sequence[Question]) -> bytes:
    """Write questions, one per line, with the side of each response."""
    return _write_lines({name: getattr(row, name) for name in Question.__slots__} for row in questions)


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
        texts = map(_disarm_formula, (row.prompt, row.response_left, row.response_right))
        table.writerow([row.duel_id, *texts, batch.digest, "", ""])
    # The byte order mark makes spreadsheets read it as UTF-8.
    return buffer.getvalue().encode("utf-8-sig")


def to_argilla(batch: Batch) -> bytes:
    """Write records for Argilla 2, one per line, as `rg.Record.from_dict` takes them.

    components/oracles/README.md explains how to import them.

    Their data set has the fields prompt, response_left and response_right, a label question "preference" (left, right,
    tie, skip), and the metadata questions (terms) and round (integer).
    """
    return _write_lines(
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
    """Return the page: one file that needs no network. The browser keeps the answers until they are sent."""
    style, script = (_read_shipped(f"labelling.{kind}") for kind in ("css", "js"))
    parts = {
        "style": style,
        "script": script,
        "policy": f"default-src 'none'; style-src {_hash_source(style)}; script-src {_hash_source(script)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'",
        "data": _embed_data(batch),
    }
    return _PLACEHOLDER.sub(lambda found: parts[found[1]], _read_shipped("labelling.html")).encode()


FORMS: Mapping[str, Callable[[Batch], bytes]] = {
    "page.html": to_page,
    "questions.csv": to_csv,
    "questions.argilla.jsonl": to_argilla,
}
"""The files in which people can answer; programs read the questions themselves."""


def _embed_data(batch: Batch) -> str:
    """Return the page's data as JSON that can neither close its script element nor be parsed as markup."""
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


def _disarm_formula(text: str) -> str:
    """Keep a spreadsheet from running a response as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _read_shipped(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _write_lines(rows: Iterable[dict[str, object]]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()
