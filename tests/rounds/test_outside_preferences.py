"""Preferences made elsewhere join every round, marked as such; nobody is asked about them."""

import json

import pytest
from oatflow.components.errors import PromptError, RefusedInput, SettingsChanged, SettingsError
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_round
from oatflow.components.rounds.steps import run_evaluation, run_fit, run_labeling, run_sampling, run_train
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.data.preferences import export_preferences
from oatflow.pipelines.data.preferences import gather as preferences_of

SMALL = {"rollout_batch_size": "4", "max_queries": "12", "max_eval": "3", "eval_every": "0", "reward": "length"}


@pytest.fixture
def outside(tmp_path):
    """Writes a set of so many preferences; of the last, both answers are the same."""

    def write(rows=6, **columns):
        names = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", **columns}
        table = [
            {names["prompt"]: f"Number {n}?", names["chosen"]: f"Better {n}", names["rejected"]: f"Worse {n}"}
            for n in range(rows)
        ]
        table[-1][names["rejected"]] = table[-1][names["chosen"]]
        file = tmp_path / "elsewhere.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in table))
        return str(file)

    return write


def run(uri, wanted):
    """Do every round there is; returns the ledger."""
    while (round_ := open_round(uri, wanted.model_dump(mode="json"), "run")) != NOTHING_TO_DO:
        ledger = Ledger.open(uri)
        fit = (run_fit,) if ledger.read_plan(round_).learns_rewards else ()
        for step in (run_sampling, run_labeling, *fit, run_train, run_evaluation):
            step(Ledger.open(uri), round_, "run")
        close_round(uri, round_, "run")
    return Ledger.open(uri)


def settings(**flags):
    return gather("scripted", None, {**SMALL, **flags})


@pytest.fixture
def uri(tmp_path):
    return f"file://{tmp_path}/ledger/mixed"


def test_every_round_learns_from_so_many_beside_its_own_each_once_before_any_twice(uri, outside):
    ledger = run(uri, settings(outside_preferences=outside(), outside_batch_size="2"))
    rounds = [ledger.read_plan(round_).outside for round_ in range(3)]
    assert [len(rows) for rows in rounds] == [2, 2, 2]
    assert len({row.prompt_id for rows in rounds for row in rows}) == 6
    counts = [ledger.find_done(round_, "policy").counts for round_ in range(3)]
    # Of one of the six both answers are the same.
    assert sorted(count["outside_pairs"] for count in counts) == [1, 2, 2]
    assert all(count["pairs"] == 4 - count["unlabelled"] + count["outside_pairs"] for count in counts)
    list(ledger.verify_objects())


def test_without_a_number_a_round_has_as_many_of_them_as_prompts(uri, outside):
    ledger = run(uri, settings(outside_preferences=outside(8), max_queries="4"))
    assert len(ledger.read_plan(0).outside) == 4


def test_nobody_is_asked_about_them_and_the_budget_stays_as_it_is(uri, outside, tmp_path, monkeypatch):
    monkeypatch.setenv("OATFLOW_ORACLE_LOG", str(tmp_path / "asked"))
    mixed = run(uri, settings(outside_preferences=outside()))
    rounds = range(mixed.read_head().round + 1)
    queries = [mixed.find_done(round_, "labeling").counts["queries"] for round_ in rounds]
    assert len((tmp_path / "asked").read_text().split()) == sum(queries) == 12
    plain = run(f"{uri}-without", settings())
    assert plain.find_done(0, "labeling").counts["queries"] == queries[0]
    # What was sampled and labelled is the same to the byte: only what is learned from differs.
    assert plain.read_output("sampling", "duels.parquet", 0) == mixed.read_output("sampling", "duels.parquet", 0)
    assert plain.policy_digest(0) != mixed.policy_digest(0)


def test_they_are_frozen_with_the_experiment(uri, outside):
    wanted = settings(outside_preferences=outside(), outside_batch_size="6")
    assert open_round(uri, wanted.model_dump(mode="json"), "run") == 0
    outside(3)
    assert len(run(uri, wanted).read_plan(2).outside) == 6
    with pytest.raises(SettingsChanged, match=r"outside\.outside_batch_size was 6 and is now 5"):
        changed = settings(outside_preferences=outside(), outside_batch_size="5")
        open_round(uri, changed.model_dump(mode="json"), "run")


def test_the_reward_model_learns_from_them_too(uri, outside):
    ledger = run(uri, settings(outside_preferences=outside(), exp_method="EnnBAITS", num_samples="3", max_queries="4"))
    own = sum(row.origin == "oracle" for row in preferences_of(ledger, [0]).rows)
    there = sum(row.chosen != row.rejected for row in ledger.read_plan(0).outside)
    counts = ledger.find_done(0, "reward_model").counts
    assert counts["pairs"] == own + there and counts["buffer"] == 4 + 4


def test_what_one_experiment_exports_joins_another_with_its_origin_marked(uri, tmp_path):
    first = run(f"{uri}-first", settings())
    export_preferences(first, range(3), tmp_path / "exported", "parquet", messages=False)
    ledger = run(uri, settings(outside_preferences=str(tmp_path / "exported/preferences.parquet")))
    rows = preferences_of(ledger, [0]).rows
    marked = {row.origin: row for row in rows}
    assert set(marked) == {"oracle", "outside"} and sum(row.origin == "outside" for row in rows) == 4
    assert marked["outside"].oracle.endswith("exported/preferences.parquet")
    assert (marked["outside"].first_wins, marked["outside"].chosen_policy) == (None, None)
    known = {(row.prompt, row.chosen, row.rejected) for row in preferences_of(first, range(3)).rows}
    assert all((row.prompt, row.chosen, row.rejected) in known for row in rows if row.origin == "outside")


def test_a_column_that_is_not_there_is_called_by_its_own_setting(uri, outside):
    wanted = settings(outside_preferences=outside(chosen="good"))
    with pytest.raises(PromptError, match=r"^outside.outside_chosen_key='chosen': .*columns there: prompt, good, rej"):
        open_round(uri, wanted.model_dump(mode="json"), "run")


def test_a_set_that_is_not_there_is_refused_before_anything_is_written(uri, tmp_path):
    wanted = settings(outside_preferences=str(tmp_path / "none.jsonl"))
    with pytest.raises(RefusedInput, match=r"^outside.outside_preferences='.*there is no such file"):
        open_round(uri, wanted.model_dump(mode="json"), "run")
    assert not (tmp_path / "ledger/mixed/experiment.json").exists()


@pytest.mark.parametrize(
    ("flags", "letter"),
    [
        ({"outside_batch_size": "3"}, "outside.outside_batch_size=3: there is no set"),
        (
            {"outside_preferences": "some.jsonl", "exp_method": "XPO", "num_samples": "2"},
            "outside.outside_preferences='some.jsonl': exp_method='XPO' needs an answer of the reference",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(flags, letter):
    with pytest.raises(SettingsError) as refused:
        settings(**flags)
    assert letter in str(refused.value)
