"""Rounds that learn from a preference set, on a directory store and with scripted rooms."""

import json

import pytest
from oatflow.components.errors import PromptError, SettingsError
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.records.records import Candidate, Duel, Preference
from oatflow.components.records.table import from_parquet
from oatflow.components.reporting.curves import read_rounds
from oatflow.components.rounds.beginning import check_inputs
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_round
from oatflow.components.rounds.steps import run_evaluation, run_labeling, run_sampling, run_train
from oatflow.pipelines.alignment.config import gather


def settings(folder, rows=8, held_out=3, **flags):
    """Settings of an offline experiment on a set of its own; of every fourth row both answers are the same."""
    for split, count in (("train", rows), ("test", held_out)):
        table = [
            {"prompt": f"Number {n}?", "good": f"Good {n}.", "bad": f"{'Bad' if n % 4 else 'Good'} {n}."}
            for n in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    wanted = {
        "prompt_data": str(folder), "chosen_key": "good", "rejected_key": "bad", "eval_every": "0",
        "rollout_batch_size": "4", "max_queries": "6", **flags,
    }  # fmt: skip
    return gather("scripted", None, wanted)


def run(uri, wanted):
    """Do every round there is; returns the ledger."""
    while (round_ := open_round(uri, wanted.model_dump(mode="json"), "run")) != NOTHING_TO_DO:
        for step in (run_sampling, run_labeling, run_train, run_evaluation):
            step(Ledger.open(uri), round_, "run")
        close_round(uri, round_, "run")
    return Ledger.open(uri)


@pytest.fixture
def uri(tmp_path):
    return f"file://{tmp_path}/experiment"


def test_just_as_many_preferences_are_learned_from_as_asked_for(uri, tmp_path):
    ledger = run(uri, settings(tmp_path))
    plans = [ledger.read_plan(round_) for round_ in range(2)]
    assert ledger.read_head().round == 1 and plans[1].last
    assert [len(plan.prompts) for plan in plans] == [4, 2]
    learned = [prompt.prompt_id for plan in plans for prompt in plan.prompts]
    assert len(set(learned)) == 6


def test_no_query_is_ever_reported(uri, tmp_path, monkeypatch):
    monkeypatch.setenv("OATFLOW_ORACLE_LOG", str(tmp_path / "asked"))
    ledger = run(uri, settings(tmp_path))
    assert [ledger.read_plan(round_).queries_spent for round_ in range(2)] == [0, 0]
    assert [row.queries_total for row in read_rounds(ledger)] == [0, 0]
    row = read_rounds(ledger)[1]
    assert (
        row.labels_total
        == sum(row.labels for row in read_rounds(ledger))
        == 6 - sum(row.clashes for row in read_rounds(ledger))
    )
    assert not (tmp_path / "asked").exists()


def test_every_label_prefers_the_answer_that_the_set_calls_better(uri, tmp_path):
    ledger = run(uri, settings(tmp_path))
    for round_ in range(2):
        duels = {row.duel_id: row for row in _table(ledger, round_, "sampling", "duels.parquet", Duel)}
        for row in _table(ledger, round_, "labeling", "preferences-0000.parquet", Preference):
            duel = duels[row.duel_id]
            if not duel.clash:
                assert getattr(duel, row.chosen).startswith("Good")


def test_a_set_that_is_smaller_than_the_budget_is_read_again(uri, tmp_path):
    # Its only row has the same answer twice: nothing can be learned from it.
    ledger = run(uri, settings(tmp_path, rows=1, max_queries="10", accepted_alarms="9"))
    assert [len(ledger.read_plan(round_).prompts) for round_ in range(3)] == [4, 4, 2]
    assert [row.duels for row in read_rounds(ledger)] == [4, 4, 2]


def test_a_win_rate_may_be_measured_all_the_same(uri, tmp_path):
    ledger = run(uri, settings(tmp_path, eval_every="1", generate_max_length="1"))
    row = read_rounds(ledger)[1]
    assert row.win_rate is not None and row.held_out == 3 and row.queries_total == 0
    cut = from_parquet(ledger.read_output("sampling", "candidates.parquet", 0), Candidate, "candidates")
    assert {(len(candidate.tokens), candidate.finish_reason) for candidate in cut} == {(1, "length")}


def test_the_held_out_split_brings_its_answers_too(tmp_path):
    inputs = check_inputs(settings(tmp_path))
    assert [(prompt.chosen, prompt.rejected) for prompt in inputs.prompts["eval"]] == [
        ("Good 0.", "Good 0."), ("Good 1.", "Bad 1."), ("Good 2.", "Bad 2."),
    ]  # fmt: skip
    wanted = settings(tmp_path)
    (tmp_path / "test.jsonl").write_text('{"prompt": "And?"}\n')
    with pytest.raises(PromptError, match=r"prompts.chosen_key='good': .*test.jsonl, line 1 has no such column"):
        check_inputs(wanted)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"rejected_key": "none"}, r"prompts.chosen_key='good', prompts.rejected_key=None: .* name both columns"),
        ({"chosen_key": "none"}, r"prompts.chosen_key=None, prompts.rejected_key='bad': .* name both columns"),
        ({"num_samples": "4"}, r"sampling.num_samples=4: offline, nothing is sampled .* leave it out \(2\)"),
        ({"temperature": "0.5"}, r"sampling.temperature=0.5: offline"),
        ({"bt_sample": "true"}, r"labeling.bt_sample=True: offline"),
        ({"sync_params_every": "3"}, r"policy.sync_params_every=3: offline"),
    ],
)
def test_settings_that_contradict_a_preference_set_are_refused_by_name(tmp_path, flags, problem):
    with pytest.raises(SettingsError, match=problem):
        settings(tmp_path, **flags)


def test_nothing_is_generated_only_where_nothing_is_sampled_and_nothing_measured(tmp_path):
    assert not settings(tmp_path).generates
    assert settings(tmp_path, eval_every="2").generates
    assert gather("scripted", None, {"eval_every": "0"}).generates


def _table(ledger, round_, room, name, kind):
    return from_parquet(ledger.read_output(room, name, round_), kind, name)
