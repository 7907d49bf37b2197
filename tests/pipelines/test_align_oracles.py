"""Oracles as users meet them, through the whole pipeline on scripted rooms: a function of one's own, and people."""

import json
import sys

import pytest
from oatflow.pipelines.cli import main

from .test_align_scripted import oatflow, status

SMALL = ("--preset", "scripted", "--rollout-batch-size", "8", "--max-queries", "16")
REWARD = '''
def warmth(prompt, response):
    """More exclamation marks are warmer."""
    return response.count("!") + len(response) / 1000
'''


def align(folder, *flags):
    return oatflow(folder, "align", *SMALL, *flags)


@pytest.mark.slow
def test_a_python_function_beside_the_command_is_an_oracle(tmp_path):
    (tmp_path / "rewards.py").write_text(REWARD)
    done = align(tmp_path, "--reward", "rewards:warmth", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "home" / "reports" / "demo.html").read_text()
    assert "simulated/rewards:warmth@" in page


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--reward", "rewards:coldness"], "there is no function 'coldness'"),
        (["--reward", "nowhere:warmth"], "reward='nowhere:warmth': cannot be imported"),
        (
            ["--reward", "rewards.py"],
            "simulated.reward='rewards.py': unknown; known: length, vader; a function of your",
        ),
        (["--reward", "rewards:war-mth"], "write module:function, such as rewards:politeness"),
        (["--preference-oracle", "pairm"], "did you mean 'pairrm'?"),
        (["--max-queries", "5"], "labeling.max_queries=5: less than one round, which has 8 duels"),
        (["--preference-oracle", "judge"], "judge.judge_model='': oracle 'judge' needs it"),
        (["--preference-oracle", "remote"], "remote.remote_url='': oracle 'remote' needs it"),
        (["--preference-oracle", "reward_model"], "scorer.scorer_model='': oracle 'scorer' needs it"),
        (["--judge-model", "gpt-x"], "judge.judge_model='gpt-x': oracle 'judge' is not asked; leave it out, or ask it"),
        (["--preference-oracle", "human"], "evaluation needs its verdicts at once; name another oracle in"),
        (["--eval-oracle", "human"], "evaluation.eval_oracle='human': people answer between runs"),
        (
            ["--preference-oracle", "remote", "--remote-url", "http://127.0.0.1:9/x"],
            "remote_url='http://127.0.0.1:9/x'",
        ),
        (["--preference-oracle", "remote", "--remote-url", "ftp://x"], "remote_url='ftp://x'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys, flags, said):
    (tmp_path / "rewards.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OATFLOW_HOME", str(tmp_path / "home"))
    # The command adds the folder that it runs in.
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "rewards", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["align", *SMALL, *flags, "--ledger", f"file://{tmp_path}/ledger"])
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert said in error and error.count("\n") == 1
    assert not list((tmp_path / "ledger").rglob("HEAD.json"))


@pytest.fixture(scope="module")
def waiting(tmp_path_factory):
    """An experiment whose first round has asked two people, and ended."""
    folder = tmp_path_factory.mktemp("people")
    first = align(folder, *PEOPLE)
    return folder, first


PEOPLE = ("--preference-oracle", "human", "--human-annotators", "2", "--eval-oracle", "simulated")


@pytest.mark.slow
def test_a_run_whose_people_have_not_answered_ends_as_waiting_and_not_as_failed(waiting):
    folder, first = waiting
    assert first.returncode == 4, first.stderr
    assert "round 0 is waiting for labels: 7 of 7 duels lack 14 answers of people" in first.stderr
    assert "`oatflow label demo`" in first.stderr
    assert "failed" not in first.stdout
    assert status(folder)["rounds_done"] == 0
    assert status(folder)["open_round"]["free"], "the next run need not wait for the lease to end"


@pytest.mark.slow
def test_a_run_that_can_only_wait_does_nothing(waiting):
    folder, _ = waiting
    before = sorted(path for path in (folder / "ledger").rglob("*") if path.is_file())
    again = align(folder, *PEOPLE)
    assert again.returncode == 4
    assert sorted(path for path in (folder / "ledger").rglob("*") if path.is_file()) == before


@pytest.mark.slow
def test_answers_carry_the_experiment_on(waiting):
    folder, _ = waiting
    assert oatflow(folder, "label", "demo", "--out", str(folder / "page")).returncode == 0
    questions = [json.loads(line) for line in (folder / "page" / "questions.jsonl").read_text().splitlines()]
    assert len(questions) == 7, "one of the eight duels is a clash"
    assert "<script" in (folder / "page" / "page.html").read_text()
    for name in ("ann", "bob"):
        answers = folder / f"answers-{name}.csv"
        verdicts = ["first", "second", "tie", "skip", "first", "second", "tie"]
        rows = [f"{row['duel_id']},{name},{verdict}" for row, verdict in zip(questions, verdicts, strict=True)]
        answers.write_text("\n".join(["duel_id,annotator,verdict", *rows]) + "\n")
        added = oatflow(folder, "label", "demo", "--answers", str(answers))
        assert added.returncode == 0 and "7 new answers" in added.stdout, added.stderr
    carried_on = align(folder, *PEOPLE, "--unreadable-limit", "0.5")
    assert carried_on.returncode == 4 and "round 1 is waiting for labels" in carried_on.stderr, carried_on.stderr
    report = status(folder)
    (row,) = report["rounds"]
    assert report["rounds_done"] == 1 and row["queries"] == 7
    asked = row["queried"]
    assert (asked["unreadable"], asked["undecided"], asked["training_queries"]) == (1, 2, 7)
    assert asked["krippendorff_alpha"] == 1.0 and asked["evaluation_queries"] > 0
    assert row["pairs"] == 4


@pytest.mark.slow
def test_the_table_of_queries_is_part_of_the_status(waiting):
    lines = oatflow(waiting[0], "status", "demo").stdout.splitlines()
    head = next(number for number, line in enumerate(lines) if line == "oracle queries")
    assert lines[head + 1].split() == ["Round", "Training", "Evaluation", "Clashes", "Unreadable", "Undecided"]
    assert lines[head + 2].split()[:2] == ["0", "7"]
