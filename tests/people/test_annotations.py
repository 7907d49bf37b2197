import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.errors import RecordError
from oatflow.components.people.annotations import (
    Annotation,
    Shown,
    annotator_name,
    as_in_duel,
    as_shown,
    from_jsonl,
    read_answers,
    to_jsonl,
)

SHOWN = Shown({"d1": "first", "d2": "second", "d3": "second"}, "abc123")
ANN, BEN = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

# As the Argilla client 2.8.0 writes them: `dataset.records.to_json`, and `to_list(flatten=True)` as JSON.
ARGILLA = [
    {"id": "d1", "fields": {"prompt": "p", "response_left": "a", "response_right": "b"},
     "metadata": {"questions": "abc123", "round": 0}, "suggestions": {},
     "responses": {"preference": [{"value": "left", "user_id": ANN}, {"value": "tie", "user_id": BEN}]},
     "vectors": {}, "status": "pending", "_server_id": None},
    {"id": "d2", "fields": {"prompt": "p", "response_left": "b", "response_right": "a"},
     "metadata": {"questions": "abc123", "round": 0}, "suggestions": {},
     "responses": {"preference": [{"value": "right", "user_id": ANN}, {"value": "left", "user_id": BEN}]},
     "vectors": {}, "status": "pending", "_server_id": None},
    {"id": "d3", "fields": {"prompt": "p", "response_left": "b", "response_right": "a"},
     "metadata": {"questions": "abc123", "round": 0}, "suggestions": {}, "responses": {}, "vectors": {},
     "status": "pending", "_server_id": None},
]  # fmt: skip
FLAT = [
    {"id": "d1", "status": "pending", "_server_id": None, "prompt": "p", "response_left": "a", "response_right": "b",
     "questions": "abc123", "round": 0, "preference.responses": ["left", "tie"],
     "preference.responses.users": [ANN, BEN], "preference.responses.status": ["submitted", "submitted"]},
    {"id": "d2", "status": "pending", "_server_id": None, "prompt": "p", "response_left": "b", "response_right": "a",
     "questions": "abc123", "round": 0, "preference.responses": ["right", "left"],
     "preference.responses.users": [ANN, BEN], "preference.responses.status": ["submitted", "draft"]},
    {"id": "d3", "status": "pending", "_server_id": None, "prompt": "p", "response_left": "b", "response_right": "a",
     "questions": "abc123", "round": 0, "preference.responses": None, "preference.responses.users": None,
     "preference.responses.status": None},
]  # fmt: skip


def read(text, name="answers.jsonl", annotator=None):
    return read_answers(text.encode() if isinstance(text, str) else text, name, SHOWN, annotator)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def row(duel="d1", annotator="ann", verdict="left", **more):
    return {"duel_id": duel, "annotator": annotator, "verdict": verdict, **more}


def test_left_and_right_become_the_duels_first_and_second_as_they_stood():
    said = [("d1", "left"), ("d2", "left"), ("d1", "right"), ("d2", "right"), ("d1", "tie"), ("d2", "skip")]
    rows = read(lines(*(row(duel, f"person-{n}", verdict) for n, (duel, verdict) in enumerate(said))))
    assert [one.verdict for one in rows] == ["first", "second", "second", "first", "tie", "skip"]
    assert [one.left for one in rows] == ["first", "second", "first", "second", "first", "second"]


def test_first_and_second_are_taken_as_they_are():
    assert [one.verdict for one in read(lines(row("d2", verdict="first"), row("d2", "ben", "second")))] == [
        "first",
        "second",
    ]


@given(st.sampled_from(["left", "right", "tie", "skip"]), st.sampled_from(["first", "second"]))
def test_what_was_said_can_be_shown_again_as_it_was_said(said, left):
    assert as_shown(Annotation("d", "ann", as_in_duel(said, left), left)) == said


@pytest.mark.parametrize(
    "table",
    [
        "duel_id,annotator,verdict\nd1,ann,left\nd2,ann,tie\n",
        "duel_id,annotator,verdict\r\nd1,ann,left\r\nd2,ann,tie\r\n",
        "\ufeffduel_id,annotator,verdict\nd1,ann,Left\nd2,Ann ,TIE\n",
        "duel_id;annotator;verdict\nd1;ann;left\nd2;ann;tie\n",
        'duel_id,prompt,annotator,verdict,questions\nd1,"two\nlines, a comma",ann,left,abc123\nd2,p,ann,tie,abc123\n',
    ],
    ids=["plain", "windows", "spreadsheet", "semicolons", "texts"],
)
def test_a_table_is_read_as_spreadsheets_write_it(table):
    assert read(table, "answers.csv") == [
        Annotation("d1", "ann", "first", "first"),
        Annotation("d2", "ann", "tie", "second"),
    ]


def test_who_answered_may_be_said_beside_the_file():
    assert [one.annotator for one in read("duel_id,verdict\nd1,left\n", "a.csv", annotator="Ann")] == ["ann"]
    assert [one.annotator for one in read(lines(row(annotator="ben")), annotator="Ann")] == ["ann"]


@pytest.mark.parametrize("as_lines", [False, True])
def test_argillas_records_are_read_with_everybody_who_answered(as_lines):
    rows = read(lines(*ARGILLA) if as_lines else json.dumps(ARGILLA), "export.json")
    assert [(one.duel_id, one.annotator, one.verdict) for one in rows] == [
        ("d1", ANN, "first"), ("d1", BEN, "tie"), ("d2", ANN, "first"), ("d2", BEN, "second"),
    ]  # fmt: skip


def test_a_draft_in_argilla_is_no_answer_where_the_export_tells_it():
    assert [(one.duel_id, one.annotator, one.verdict) for one in read(json.dumps(FLAT))] == [
        ("d1", ANN, "first"), ("d1", BEN, "tie"), ("d2", ANN, "first"),
    ]  # fmt: skip


def test_a_record_that_was_discarded_in_argilla_is_a_skip():
    nested = {"id": "d1", "responses": {"preference": [{"value": None, "user_id": ANN}]}}
    flat = {"id": "d1", "preference.responses": [None], "preference.responses.users": [ANN],
            "preference.responses.status": ["discarded"]}  # fmt: skip
    assert [one.verdict for one in read(json.dumps([nested]))] == ["skip"]
    assert [one.verdict for one in read(json.dumps([flat]))] == ["skip"]


def test_an_empty_file_has_no_answers():
    assert read("") == read("\n\n") == read("[]") == read("duel_id,annotator,verdict\n", "a.csv") == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (lines(row()) + lines(row("d9")), r"answers.jsonl: line 2: duel_id='d9': not one of the 3 duels"),
        (lines(row(verdict="lefty")), r"line 1: verdict='lefty': expected left, right, tie or skip"),
        (lines(row(verdict="")), r"line 1: verdict is empty; write left, right, tie or skip, or take out the line"),
        (lines(row(verdict=1)), r"line 1: verdict=1: expected a text"),
        (lines({"duel_id": "d1", "verdict": "tie"}), r"annotator is missing; there are: duel_id, verdict.*--annotator"),
        (lines(row(annotator="   ")), r"line 1: annotator='.*': expected a name of 1 to 64"),
        (lines(row(annotator="x" * 65)), r"line 1: annotator="),
        (lines(row(annotator="a\x00b")), r"line 1: annotator="),
        (lines(row(questions="other")), r"line 1: questions='other': an answer to other questions"),
        (lines(row()) + '{"duel_id": "d2", "ann', r"line 2: not JSON .*is the line whole"),
        (lines(["d1"]), r"line 1: .*is not a JSON object|record 1"),
        ("3\n", r"line 1: '3' is not a JSON object"),
        ("[" * 100_000, r"not JSON"),
        (b"\xff\xfe\x00", r"not UTF-8"),
        (json.dumps([{"id": "d9", "responses": {"preference": [{"value": "left", "user_id": ANN}]}}]), r"1: .*d9"),
        (json.dumps([{"id": "d1", "responses": {"preference": "left"}}]), r"record 1: responses="),
        (json.dumps([{"id": "d1", "responses": "left"}]), r"record 1: responses="),
        (json.dumps([{"id": "d1", "preference.responses": ["left"]}]), r"as many users and states"),
        (json.dumps([{**ARGILLA[0], "metadata": {"questions": "old"}}]), r"record 1: questions='old'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_file_line_and_field(text, complaint):
    with pytest.raises(RecordError, match=complaint):
        read(text)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("duel_id,annotator\nd1,ann\n", r"answers.csv: line 2: verdict is missing; there are: duel_id, annotator"),
        ("duel_id,annotator,verdict\nd1,ann,left\nd2,ann,\n", r"line 3: verdict is empty"),
        ("duel_id,annotator,verdict\nd1,ann\n", r"line 2: verdict is empty"),
        ("duel_id,annotator,verdict\nd1,ann,left,too,many\n", r"line 2: more values than columns"),
        ("duel_id,annotator,verdict\n" + "x" * 200_000 + ",ann,left\n", r"not CSV"),
    ],
)
def test_a_line_of_a_table_that_is_not_finished_is_refused(table, complaint):
    with pytest.raises(RecordError, match=complaint):
        read(table, "answers.csv")


def test_a_name_stands_for_one_person_however_it_is_spelt():
    assert {annotator_name(name, "x") for name in ("Jörg Öst", " jörg  öst ", "JO\u0308RG O\u0308ST")} == {"jörg öst"}


def test_annotations_come_back_from_the_ledger_as_they_went_in():
    rows = [Annotation("d1", "jörg", "first", "second"), Annotation("d2", "a\u2028b", "skip")]
    assert from_jsonl(to_jsonl(rows), "x") == rows
    with pytest.raises(RecordError, match="x: line 1: not an annotation"):
        from_jsonl(b'{"duel": 1}\n', "x")
