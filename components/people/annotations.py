"""A person's verdict on a duel, and readers for it: the page's answers, a spreadsheet, an export of Argilla.

People see a left and a right response. Only the round's questions record which of them is the duel's first, so a reader
needs those as well (`Shown`). Errors name file, line and field.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from ..errors import RecordError
from ..records.json_text import parse_json
from ..records.records import Side

Verdict = Literal["first", "second", "tie", "skip"]
SAID = ("left", "right", "tie", "skip", "first", "second")
"""The verdicts that a file may contain; left and right as the question was shown, first and second as in the duel."""
QUESTION = "preference"
"""The name of the question in Argilla."""
LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Annotation:
    """One person's verdict on one duel. `left`: the response that was shown on the left, if known."""

    duel_id: str
    annotator: str
    verdict: Verdict
    left: Side | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """Which response of each duel was shown on the left, and the digest that identifies the questions."""

    left: Mapping[str, Side]
    digest: str


def read_answers(data: bytes, name: str, shown: Shown, annotator: str | None = None) -> list[Annotation]:
    """Read a file of answers; its name decides whether it is CSV, and appears in errors.

    JSON Lines as the page writes them; CSV with the columns duel_id, annotator and verdict; or records that Argilla
    exported, as JSON or JSON Lines. `annotator` replaces the name in the file, which may then have none. Raises
    `RecordError` for the first line that cannot be read.
    """
    text = _decode_text(data, name)
    rows = _csv_rows(text, name) if name.lower().endswith(".csv") else _json_rows(text, name)
    return [annotation for where, row in rows for annotation in _read_row(row, where, shown, annotator)]


def read_answer(row: Mapping[str, Any], where: str, shown: Shown, annotator: str | None = None) -> Annotation:
    """Read one answer: duel_id, annotator and verdict. `where` is its place in the file, for errors."""
    duel_id = _read_field(row, "duel_id", where)
    if row.get("questions") not in (None, "", shown.digest):
        raise RecordError(
            f"{where}: questions={row['questions']!r}: an answer to other questions than those that wait, "
            f"which are {shown.digest!r}"
        )
    if duel_id not in shown.left:
        raise RecordError(f"{where}: duel_id={duel_id!r}: not one of the {len(shown.left)} duels that were asked")
    said = _read_field(row, "verdict", where).lower()
    if said not in SAID:
        raise RecordError(f"{where}: verdict={said!r}: expected left, right, tie or skip")
    who = annotator_name(annotator or _read_field(row, "annotator", where), where)
    left = shown.left[duel_id]
    return Annotation(duel_id, who, as_in_duel(said, left), left)


def as_in_duel(said: str, left: Side) -> Verdict:
    """Translate left and right into first and second of the duel."""
    other: Side = "second" if left == "first" else "first"
    return cast(Verdict, {"left": left, "right": other}.get(said, said))


def as_shown(annotation: Annotation) -> str:
    """Return the verdict as the person saw the duel: left or right where that is known."""
    if annotation.verdict in ("tie", "skip") or annotation.left is None:
        return annotation.verdict
    return "left" if annotation.verdict == annotation.left else "right"


def annotator_name(name: str, where: str) -> str:
    """Normalise a person's name, so that capitals and spaces do not make another person of them."""
    plain = " ".join(unicodedata.normalize("NFC", name).casefold().split())
    if not plain or len(plain) > LONGEST_NAME or not plain.isprintable():
        raise RecordError(f"{where}: annotator={name!r}: expected a name of 1 to {LONGEST_NAME} characters")
    return plain


def to_jsonl(annotations: Iterable[Annotation]) -> bytes:
    """Write annotations, one per line. The same annotations give the same bytes."""
    lines = (json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) for row in annotations)
    return "".join(f"{line}\n" for line in lines).encode()


def from_jsonl(data: bytes, name: str) -> list[Annotation]:
    """Read what `to_jsonl` wrote."""
    rows = []
    for where, row in _json_rows(_decode_text(data, name), name):
        try:
            rows.append(Annotation(**row))
        except TypeError as error:
            raise RecordError(f"{where}: not an annotation ({error})") from error
    return rows


def _read_row(row: Mapping[str, Any], where: str, shown: Shown, annotator: str | None) -> Iterator[Annotation]:
    is_nested, is_flat = "responses" in row, f"{QUESTION}.responses" in row
    if not (is_nested or is_flat or ("id" in row and "duel_id" not in row)):
        yield read_answer(row, where, shown, annotator)
        return
    responses = _argilla_flat(row, where) if is_flat else _argilla_nested(row, where)
    metadata = row.get("metadata")
    questions = metadata.get("questions") if isinstance(metadata, dict) else row.get("questions")
    for who, said in responses:
        answer = {"duel_id": row.get("id"), "annotator": who, "verdict": said, "questions": questions}
        yield read_answer(answer, where, shown, annotator)


def _argilla_nested(row: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """Yield annotator and verdict from a record of `dataset.records.to_json` or `to_list`, which do not mark drafts."""
    responses = row.get("responses") or {}
    given = responses.get(QUESTION, []) if isinstance(responses, dict) else None
    if not isinstance(given, list) or not all(isinstance(response, dict) for response in given):
        raise RecordError(f"{where}: responses={responses!r}: expected {{{QUESTION!r}: [{{'value', 'user_id'}}]}}")
    for response in given:
        # A record that was discarded in Argilla has a response without a value.
        value = response.get("value")
        yield str(response.get("user_id") or ""), "skip" if value is None else value


def _argilla_flat(row: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """Yield annotator and verdict from a record of `to_list(flatten=True)`; drafts are left out."""
    key = f"{QUESTION}.responses"
    values, users = row[key] or [], row.get(f"{key}.users") or []
    states = row.get(f"{key}.status") or ["submitted"] * len(values)
    if not (isinstance(values, list) and len(values) == len(users) == len(states)):
        raise RecordError(f"{where}: {key}: expected as many users and states as values")
    for value, user, state in zip(values, users, states, strict=True):
        if state != "draft":
            yield str(user), "skip" if value is None or state == "discarded" else value


def _read_field(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if value is None or value == "":
        there = "is empty" if field in row else f"is missing; there are: {', '.join(map(str, row)) or 'none'}"
        raise RecordError(f"{where}: {field} {there}{_give_advice(field)}")
    if not isinstance(value, str):
        raise RecordError(f"{where}: {field}={value!r}: expected a text")
    return value.strip()


def _give_advice(field: str) -> str:
    advice = {
        "verdict": "; write left, right, tie or skip, or take out the line",
        "annotator": "; say who answered with --annotator NAME",
    }
    return advice.get(field, "")


def _decode_text(data: bytes, name: str) -> str:
    try:
        # Spreadsheets put a byte order mark before UTF-8.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def _csv_rows(text: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    head = text.partition("\n")[0]
    # Spreadsheets of half the world separate by semicolons.
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in head and "," not in head else ",")
    try:
        for row in reader:
            if None in row:
                raise RecordError(f"{name}: line {reader.line_num}: more values than columns")
            yield f"{name}: line {reader.line_num}", row
    except csv.Error as error:
        raise RecordError(f"{name}: line {reader.line_num}: not CSV ({error})") from error


def _json_rows(text: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if text.lstrip().startswith("["):
        whole = _parse_json(text, name)
        rows = [(f"{name}: record {number}", row) for number, row in enumerate(whole, 1)]
    else:
        # Only a line feed ends a line: a text may hold other separators.
        lines = [(f"{name}: line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [(where, _parse_json(line, where)) for where, line in lines]
    for where, row in rows:
        if not isinstance(row, dict):
            raise RecordError(f"{where}: {str(row)[:60]!r} is not a JSON object")
        yield where, row


def _parse_json(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise RecordError(f"{where}: not JSON ({error}); is the line whole?") from error
