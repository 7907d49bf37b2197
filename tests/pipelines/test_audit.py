"""`oatflow audit-oracle`, for oracles that cost nothing and for a judge behind a loopback endpoint."""

import argparse
import json

import pytest
from oatflow.components.errors import RecordError, RefusedInput
from oatflow.components.oracles.oracle import SpendingLimit
from oatflow.pipelines.data.audit import audit_parser, shipped_pairs

from ..oracles.openai_service import KEY, MODEL, openai_service


def audit(*flags):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    audit_parser(parser.add_subparsers())
    given = parser.parse_args(["audit-oracle", *flags])
    return given.do(given)


@pytest.fixture
def judge(monkeypatch):
    monkeypatch.setenv("OATFLOW_JUDGE_KEY", KEY)
    with openai_service() as service:
        service.flags = ["--preference_oracle", "judge", "--judge_model", MODEL, "--judge_url", service.url]
        yield service


@pytest.fixture
def write(tmp_path):
    def write_it(*rows, name="labels.jsonl"):
        path = tmp_path / name
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return str(path)

    return write_it


def labelled(number, label):
    return {"prompt": f"prompt {number}", "first": "one two three", "second": "one", "label": label}


def test_the_default_oracle_is_audited_on_pairs_that_ship(capsys):
    assert audit("--count", "4") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Auditing simulated/vader")
    assert "20 questions about 4 pairs, at most 20 requests" in printed
    row = next(line for line in printed.splitlines() if line.startswith("same answer twice"))
    assert row.split()[-4:] == ["0.000", "4", "0", "ok"]
    assert "20 questions answered" in printed


def test_every_share_has_its_interval_and_every_number_its_n(capsys):
    audit("--count", "3", "--reward", "length")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith((" ok", " !"))]
    assert len(rows) == 7
    counts = [int(row.split()[-3]) for row in rows]
    assert counts == [15, 3, 3, 3, 3, 3, 6]
    assert all(("[" in row) == ("same winner" in row or "can be read" in row or "beats" in row) for row in rows)


def test_a_judge_that_follows_the_place_is_told_so_with_what_it_cost(judge, capsys):
    judge.bias = 20.0
    audit(*judge.flags, "--count", "3", "--judge_input_price", "2.0", "--judge_spending_limit", "5")
    printed = capsys.readouterr().out
    assert f"Auditing judge/{MODEL}@127.0.0.1" in printed
    assert "15 questions about 3 pairs, at most 30 requests, spending at most 5." in printed
    assert "! what is shown first wins: P: 1 over 6: it favours a place" in printed
    assert "! both orders have the same winner: 0 over 3" in printed
    assert "15 questions answered, 30 requests, 0 failed tries, " in printed and ", cost 0.0" in printed
    assert KEY not in printed


def test_the_number_of_questions_is_told_before_the_first_is_asked(judge, capsys):
    told = []
    judge.after_answers = lambda count: told.append(capsys.readouterr().out) if count == 1 else None
    audit(*judge.flags, "--count", "2", "--judge_orders", "one", "--judge_concurrency", "1")
    assert "10 questions about 2 pairs, at most 10 requests" in told[0]


def test_a_limit_that_is_reached_tells_what_was_spent(judge, capsys):
    flags = [*judge.flags, "--judge_input_price", "100", "--judge_spending_limit", "0.5"]
    with pytest.raises(SpendingLimit):
        audit(*flags)
    assert " questions answered, " in capsys.readouterr().out.splitlines()[-1]


def test_a_judge_that_is_not_there_is_refused_before_a_question(judge):
    with pytest.raises(RefusedInput, match="judge_model='judge-2': not served"):
        audit(*judge.flags, "--judge_model", "judge-2")
    assert not judge.answered


def test_agreement_with_people(write, capsys):
    labels = [labelled(number, "first") for number in range(6)] + [labelled(7, "second"), labelled(8, "tie")]
    audit("--reward", "length", "--labels", write(*labels), "--count", "0")
    printed = capsys.readouterr().out
    assert "8 questions that people answered" in printed and "pairs" not in printed
    assert "Agreement with people: 0.750 [0.409, 0.929], n = 8." in printed
    assert "Where neither says tie: 0.857 [0.487, 0.974], n = 7." in printed
    assert "Cohen's kappa: 0.000, n = 8: no better than chance." in printed


def test_unanimous_labels_have_no_kappa(write, capsys):
    audit("--reward", "length", "--labels", write(labelled(0, "first")), "--count", "0")
    printed = capsys.readouterr().out
    assert "Agreement with people: 1.000 [0.207, 1.000], n = 1." in printed
    assert "Cohen's kappa: not defined" in printed


def test_labels_that_meet_unreadable_answers_alone_give_no_number(judge, write, capsys):
    judge.says = lambda *texts: "Hmm."
    audit(*judge.flags, "--judge_verdict", "parsed", "--labels", write(labelled(0, "first")), "--count", "0")
    assert "Agreement with people: unknown, n = 0; 1 more cannot be read." in capsys.readouterr().out


def test_pairs_of_ones_own(write, capsys):
    audit("--pairs", write({"prompt": "p", "first": "one two", "second": "three", "more": 1}), "--reward", "length")
    assert "5 questions about 1 pairs" in capsys.readouterr().out


def test_the_pairs_that_ship_are_pairs_whose_better_side_changes():
    pairs = list(shipped_pairs())
    assert len(pairs) == 256 and all(pair.first != pair.second for pair in pairs)


@pytest.mark.parametrize(("rows", "letter"), [
    (["{"], r"labels.jsonl: line 1: not JSON"),
    (["", "[1]"], r"labels.jsonl: line 2: '\[1\]' is not a JSON object"),
    ([{"prompt": "p", "first": "a", "label": "tie"}], "line 1: second: expected a text .* missing; there are: prompt"),
    ([labelled(0, "tie"), {**labelled(0, "tie"), "first": ""}], "line 2: first: expected a text that is not empty"),
    ([{**labelled(0, "tie"), "second": 3}], "line 1: second: expected a text that is not empty, found 3"),
    ([{**labelled(0, "tie"), "second": "one two three"}], "line 1: second: equal to first"),
    ([labelled(0, "left")], "line 1: label='left': expected first, second, tie"),
    ([labelled(0, ["first"])], r"line 1: label=\['first'\]: expected"),
    ([], "labels.jsonl: is empty"),
])  # fmt: skip
def test_labels_that_cannot_be_read_are_refused_by_line_and_field(write, rows, letter):
    with pytest.raises(RecordError, match=letter):
        audit("--labels", write(*rows))


def test_what_cannot_be_audited_is_refused(tmp_path):
    with pytest.raises(RefusedInput, match="count=0: nothing to ask"):
        audit("--count", "0")
    with pytest.raises(RefusedInput, match="count=-1"):
        audit("--count", "-1")
    with pytest.raises(RefusedInput, match=r"none.jsonl: cannot be read"):
        audit("--pairs", str(tmp_path / "none.jsonl"))
    with pytest.raises(RefusedInput, match="human"):
        audit("--preference_oracle", "human", "--eval_every", "0")
