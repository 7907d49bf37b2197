import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import pytest
from oatflow.components.errors import RecordError
from oatflow.components.people.annotations import read_answers
from oatflow.components.people.questions import (
    Batch,
    from_jsonl,
    make_questions,
    to_argilla,
    to_csv,
    to_jsonl,
    to_page,
)
from oatflow.components.records.records import Duel, duel_id

HOSTILE = "</script><script>document.title='broken'</script><!-- {{script}} <img src=//x.test/y onerror=x()> \u2028"


def duel(number, first="the first", second="the second", prompt=None):
    prompt = prompt or f"Question {number}?"
    return Duel(duel_id(prompt, first, second), f"prompt-{number}", prompt, first, second, 3, 7, False)


def batch(duels, seed=7, round_=2):
    return Batch("demo", round_, "Which answer is kinder?", make_questions(duels, seed, round_))


@pytest.fixture
def many():
    return [duel(number) for number in range(400)]


class Elements(HTMLParser):
    """The text of every script and style, and all addresses that the page names."""

    def __init__(self, text):
        super().__init__()
        self.inside, self.found, self.addresses, self.metas = None, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [given[name] for name in ("src", "href", "action") if name in given]
        if tag == "meta":
            self.metas.append(given)
        if tag in ("script", "style"):
            self.inside = (tag, given.get("type"))
            self.found.append([self.inside, ""])

    def handle_data(self, data):
        if self.inside:
            self.found[-1][1] += data

    def handle_endtag(self, tag):
        self.inside = None if tag in ("script", "style") else self.inside

    def data(self):
        return json.loads(next(text for kind, text in self.found if kind == ("script", "application/json")))


def test_each_duel_is_asked_once_in_order(many):
    questions = make_questions([*many[:3], many[0], many[3]], 7, 0)
    assert [one.duel_id for one in questions] == [one.duel_id for one in many[:4]]


def test_the_sides_are_drawn_evenly_and_by_seed_round_and_duel_alone(many):
    sides = {one.duel_id: one.left for one in make_questions(many, 7, 2)}
    assert 0.4 < sum(side == "first" for side in sides.values()) / len(sides) < 0.6
    assert sides == {one.duel_id: one.left for one in make_questions(many[::-1], 7, 2)}
    assert sides != {one.duel_id: one.left for one in make_questions(many, 8, 2)}
    assert sides != {one.duel_id: one.left for one in make_questions(many, 7, 3)}


def test_what_stands_on_the_left_is_what_is_said_to_stand_there(many):
    for row, one in zip(many, make_questions(many, 7, 2), strict=True):
        shown = (one.response_left, one.response_right)
        assert shown == ((row.first, row.second) if one.left == "first" else (row.second, row.first))


def test_everything_is_the_same_bytes_whenever_it_is_made(many):
    one, other = batch(many[:5]), batch(many[:5])
    for form in (to_page, to_csv, to_argilla):
        assert form(one) == form(other)
    assert one.digest == other.digest != batch(many[:4]).digest


def test_questions_come_back_as_they_went(many):
    questions = make_questions([*many[:3], duel(9, HOSTILE, "\x00 \ud800".encode("utf-8", "replace").decode())], 7, 2)
    assert from_jsonl(to_jsonl(questions), "x") == questions
    assert from_jsonl(to_jsonl(()), "x") == ()
    with pytest.raises(RecordError, match="x: not the questions of a round"):
        from_jsonl(b'{"duel_id": 1}\n', "x")


def test_page_table_and_argillas_records_do_not_tell_which_candidate_is_which(many):
    asked = batch(many[:6])
    assert Elements(to_page(asked).decode()).data()["questions"][0].keys() == {"id", "prompt", "left", "right"}
    assert "first" not in to_csv(asked).decode().partition("\n")[0]
    record = json.loads(to_argilla(asked).split(b"\n")[0])
    assert record["fields"].keys() == {"prompt", "response_left", "response_right"}
    assert record["metadata"] == {"questions": asked.digest, "round": 2}


def test_a_hostile_text_is_data_of_the_page_and_nothing_else():
    row = duel(0, HOSTILE, "plain", prompt=HOSTILE)
    asked = Batch(f"demo{HOSTILE}", 0, HOSTILE, make_questions([row], 7, 0))
    page = to_page(asked).decode()
    assert HOSTILE not in page
    elements = Elements(page)
    assert [kind for kind, _ in elements.found] == [("style", None), ("script", "application/json"), ("script", None)]
    assert elements.data()["questions"][0]["prompt"] == elements.data()["guideline"] == HOSTILE
    assert page.count('"use strict"') == 1


def test_the_page_names_no_address_and_runs_only_its_own_script(many):
    elements = Elements(to_page(batch(many[:2])).decode())
    assert elements.addresses == []
    (policy,) = [meta["content"] for meta in elements.metas if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "connect-src 'self'" in policy
    for kind, text in elements.found:
        if kind != ("script", "application/json"):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{kind[0]}-src 'sha256-{digest}'" in policy


def test_a_table_that_was_filled_in_is_read_back(many):
    asked = batch(many[:3])
    rows = list(csv.DictReader(io.StringIO(to_csv(asked).decode("utf-8-sig"), newline="")))
    for row in rows:
        row |= {"annotator": "ann", "verdict": "left"}
    buffer = io.StringIO(newline="")
    table = csv.DictWriter(buffer, rows[0].keys())
    table.writeheader()
    table.writerows(rows)
    read = read_answers(buffer.getvalue().encode(), "a.csv", asked.shown)
    assert [row.verdict for row in read] == [question.left for question in asked.questions]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_response_is_a_formula_in_a_spreadsheet(start):
    table = to_csv(batch([duel(0, f"{start}HYPERLINK(1)", "plain")])).decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(table, newline=""))
    assert f"'{start}HYPERLINK(1)" in (row["response_left"], row["response_right"])


def test_argillas_records_are_those_that_its_client_takes(many):
    # The keys of `rg.Record.from_dict` and `to_dict` in Argilla 2; a response is {"value", "user_id"} by question.
    for line in to_argilla(batch(many[:2])).decode().splitlines():
        record = json.loads(line)
        assert record.keys() == {"id", "fields", "metadata", "suggestions", "responses", "vectors"}
        assert record["responses"] == {"preference": []}
        assert all(isinstance(value, str | int) for value in record["metadata"].values())


def test_a_round_without_a_duel_makes_an_empty_page_and_tables():
    asked = batch([])
    assert Elements(to_page(asked).decode()).data()["questions"] == []
    assert to_argilla(asked) == to_jsonl(asked.questions) == b""
    assert len(to_csv(asked).splitlines()) == 1


def test_the_page_is_small_beside_what_it_asks(many):
    assert len(to_page(batch([]))) < 40_000
    assert re.search(rb"<title>", to_page(batch(many)))
