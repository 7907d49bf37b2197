import io
import json
import re
import sys
import threading
import time
import urllib.request

import pytest
from oatflow.components.errors import RecordError, RefusedInput, WaitingForLabels
from oatflow.components.oracles.settings import HumanSettings
from oatflow.components.records.plan import Plan, PolicyPointer
from oatflow.components.records.records import Duel, duel_id
from oatflow.components.rounds.annotation_files import collect_answers, read_annotations, read_batch
from oatflow.pipelines.data.ledger_status import read_open_round
from oatflow.pipelines.people.label_command import LabelOptions, label_round


def duel(number):
    texts = f"Question {number}?", "one", "two"
    return Duel(duel_id(*texts), f"prompt-{number}", *texts, 0, 1, False)


DUELS = [duel(number) for number in range(3)]


@pytest.fixture
def begin(begin_ledger):
    def begin(oracle="human"):
        settings = {"prompts": {}, "labeling": {"preference_oracle": oracle}, "ledger": {"seed": 7}}
        return begin_ledger("demo", settings, [Plan(0, 1, (), *[PolicyPointer(-1, "start")] * 2, 0, 1000)])[0]

    return begin


@pytest.fixture
def asked(begin):
    ledger = begin()
    with pytest.raises(WaitingForLabels), ledger.open_step(0, "labeling", "a") as step:
        collect_answers(step, DUELS, HumanSettings(), print)
    return ledger


def answers(duels=DUELS, verdict="left"):
    return "".join(json.dumps({"duel_id": row.duel_id, "annotator": "ann", "verdict": verdict}) + "\n" for row in duels)


def test_the_questions_are_written_into_a_folder_and_it_is_said_what_to_do(asked, tmp_path, capsys):
    assert label_round(asked, "demo", tmp_path / "home", LabelOptions()) == 0
    folder = tmp_path / "home" / "labels" / "demo-round-0"
    for name in ("page.html", "questions.csv", "questions.jsonl", "questions.argilla.jsonl"):
        stored = asked.store.get(f"rounds/00000/labeling/questions/{name}").data
        assert (folder / name).read_bytes() == stored
    said = capsys.readouterr().out
    assert "3 of 3 duels lack 3 answers of people" in said
    assert str(folder / "page.html") in said
    assert "oatflow label demo --answers FILE" in said


def test_status_has_the_duels_that_are_still_open(asked, tmp_path):
    assert read_open_round(asked, 0)["people"] == {"asked": 3, "open": 3, "answers": 3}
    (tmp_path / "some.jsonl").write_text(answers(DUELS[:1]))
    label_round(asked, "demo", tmp_path, LabelOptions(answers=[tmp_path / "some.jsonl"]))
    found = read_open_round(asked, 0)
    assert (found["people"], found["next_step"]) == ({"asked": 3, "open": 2, "answers": 2}, "sample")


def test_status_of_a_round_that_asks_nobody_has_no_duels_for_people(begin):
    assert read_open_round(begin("simulated"), 0)["people"] is None


def test_answers_are_added_and_what_is_open_is_said(asked, tmp_path, capsys):
    (tmp_path / "some.jsonl").write_text(answers(DUELS[:1]))
    (tmp_path / "rest.csv").write_text(f"duel_id,verdict\n{DUELS[1].duel_id},tie\n{DUELS[2].duel_id},skip\n")
    label_round(asked, "demo", tmp_path, LabelOptions(answers=[tmp_path / "some.jsonl"]))
    assert "1 new answers. Round 0: 2 of 3 duels lack 2 answers of people." in capsys.readouterr().out
    label_round(
        asked, "demo", tmp_path, LabelOptions(answers=[tmp_path / "rest.csv", tmp_path / "some.jsonl"], annotator="Ann")
    )
    assert "2 new answers. Round 0: all 3 duels are answered; run `oatflow align` again" in capsys.readouterr().out


def test_of_several_files_none_is_added_if_one_cannot_be_read(asked, tmp_path):
    (tmp_path / "good.jsonl").write_text(answers())
    (tmp_path / "bad.jsonl").write_text(answers()[:-20])
    with pytest.raises(RecordError, match=r"bad.jsonl: line 3: not JSON"):
        label_round(asked, "demo", tmp_path, LabelOptions(answers=[tmp_path / "good.jsonl", tmp_path / "bad.jsonl"]))
    with pytest.raises(RefusedInput, match=r"missing.jsonl.*No such file"):
        label_round(
            asked, "demo", tmp_path, LabelOptions(answers=[tmp_path / "good.jsonl", tmp_path / "missing.jsonl"])
        )
    assert read_annotations(asked, 0) == []


def test_where_no_round_waits_it_says_why(begin, asked, tmp_path):
    with asked.open_step(0, "labeling", "a") as step:
        step.mark_done(counts={}, timings={})
    with pytest.raises(RefusedInput, match="round 0 is labelled already"):
        label_round(asked, "demo", tmp_path, LabelOptions())


@pytest.mark.parametrize(("oracle", "why"), [("judge", "preference_oracle is 'judge'"), ("human", "not asked yet")])
def test_a_round_that_asked_nobody_waits_for_nobody(begin, tmp_path, oracle, why):
    with pytest.raises(RefusedInput, match=f"experiment='demo': round 0 does not wait for labels; .*{why}"):
        label_round(begin(oracle), "demo", tmp_path, LabelOptions())
    assert not (tmp_path / "labels").exists()


def test_a_page_and_answers_at_once_are_refused(asked, tmp_path):
    with pytest.raises(RefusedInput, match="serve, answers"):
        label_round(asked, "demo", tmp_path, LabelOptions(answers=[tmp_path / "a.jsonl"], serve=True))


@pytest.mark.parametrize("port", [70000, -1])
def test_a_port_that_cannot_be_had_is_refused(asked, tmp_path, port):
    with pytest.raises(RefusedInput, match=f"port={port}: cannot be opened"):
        label_round(asked, "demo", tmp_path, LabelOptions(serve=True, port=port))


def test_the_served_page_stops_when_everything_is_answered(asked, tmp_path, monkeypatch):
    printed = io.StringIO()  # capsys may lose what another thread prints while it is read
    monkeypatch.setattr(sys, "stdout", printed)
    thread = threading.Thread(target=label_round, args=(asked, "demo", tmp_path, LabelOptions(serve=True)))
    thread.start()
    while not (address := re.search(r"(http://127.0.0.1:\d+)/[\w-]+/", printed.getvalue())):
        assert thread.is_alive()
        time.sleep(0.01)
    rows = [json.loads(line) for line in answers().splitlines()]
    headers = {"Origin": address[1], "Content-Type": "application/json"}
    request = urllib.request.Request(f"{address[0]}answers", json.dumps({"answers": rows}).encode(), headers)
    assert json.loads(urllib.request.urlopen(request, timeout=30).read()) == {"new": 3}
    thread.join(30)
    assert not thread.is_alive()
    assert "all 3 duels are answered" in printed.getvalue()
    left = read_batch(asked, 0).shown.left
    assert {row.duel_id: row.verdict for row in read_annotations(asked, 0)} == left
    label_round(asked, "demo", tmp_path, LabelOptions(serve=True))
    assert printed.getvalue().count("all 3 duels are answered") == 2
