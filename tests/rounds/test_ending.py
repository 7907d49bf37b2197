"""An experiment ends when its budget is spent, or says in a sentence why it ends before."""

import re
import shutil

import pytest
from oatflow.components.errors import SettingsChanged
from oatflow.components.ledger.claim import release_claim
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.oracles.simulated import SimulatedOracle
from oatflow.components.prompts.template import WordTokenizer
from oatflow.components.records.plan import WITHOUT_REWARD_MODEL
from oatflow.components.records.records import Prompt
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.ending import find_missing
from oatflow.components.rounds.experiment import ExperimentSettings, read_settings
from oatflow.components.rounds.in_memory import InMemory
from oatflow.components.rounds.opening import NOTHING_TO_DO, find_newest_settings, open_next_round, open_round
from oatflow.components.rounds.training_program import name_checkpoint
from oatflow.components.sampling.engine import ScriptedEngine
from oatflow.pipelines.alignment.config import gather
from transformers import LlamaConfig, LlamaForCausalLM

from .round_by_step import play_steps

SMALL = {"rollout_batch_size": "8", "max_queries": "24", "max_eval": "4", "reward": "length"}


@pytest.fixture
def uri(tmp_path):
    return f"file://{tmp_path}/experiment"


def settings(**flags):
    return gather("scripted", None, SMALL | flags)


def open_next(uri, wanted, run="run"):
    return open_round(uri, wanted.model_dump(mode="json"), run)


def fill(uri, round_, counts, run="run", facts=None, evaluated=None):
    """Do a round whose labeling step counts what is given, and whose steps find the facts that are given."""
    ledger = Ledger.open(uri)
    for step_name in WITHOUT_REWARD_MODEL:
        with ledger.open_step(round_, step_name, run) as step:
            if step_name == "policy":
                step.write_output("model/weights", b"w")
            made = {"labeling": counts, "evaluation": evaluated or {}}
            step.mark_done(made.get(step_name, {}), {}, (facts or {}).get(step_name, {}))
    close_round(uri, round_, run)


def spend(uri, wanted, queries):
    """Do rounds that spend so many queries each; returns what opening the next one returns."""
    for number in queries:
        fill(uri, open_next(uri, wanted), {"queries": number})
    return open_next(uri, wanted)


def test_an_experiment_ends_when_its_budget_is_spent_although_clashes_are_free(uri):
    wanted = settings(exp_method="EnnEETS", num_samples="4", num_ensemble="3", accepted_alarms="99", ties="oat")
    while (round_ := open_next(uri, wanted)) != NOTHING_TO_DO:
        play_steps(uri, round_, "run")
    ledger = Ledger.open(uri)
    labeled = [ledger.find_done(number, "labeling").counts for number in range(ledger.read_head().round + 1)]
    assert sum(counts["queries"] for counts in labeled) == 24
    assert len(labeled) > wanted.rounds == 3 and sum(counts["clashes"] for counts in labeled) > 0


def test_what_clashes_have_saved_pays_for_a_further_round_and_is_spent_at_once(uri):
    wanted = settings()
    assert spend(uri, wanted, [6, 8, 7]) == 3
    plan = Ledger.open(uri).read_plan(3)
    assert (plan.queries_left, len(plan.prompts), plan.last) == (3, 8, True)


def test_without_clashes_the_plans_count_the_same_rounds_from_the_first_to_the_last(uri):
    wanted = settings(max_queries="20")
    assert spend(uri, wanted, [8, 8]) == 2
    plans = [Ledger.open(uri).read_plan(number) for number in range(3)]
    assert [(plan.rounds, plan.last, len(plan.prompts)) for plan in plans] == [
        (3, False, 8),
        (3, False, 8),
        (3, True, 4),
    ]


def test_with_clashes_the_number_of_planned_rounds_grows(uri):
    spend(uri, settings(), [8, 2, 8])
    ledger = Ledger.open(uri)
    assert [ledger.read_plan(number).rounds for number in range(4)] == [3, 3, 4, 4]


@pytest.mark.parametrize("period", ["0", "1", "5"])
def test_a_plan_knows_that_synthetic_pairs_cost_nothing(period):
    mixed = settings(
        exp_method="EnnEETS", num_samples="4", num_ensemble="3", model_rollout="true", burn_in_period=period,
        max_model_data_ratio="0.5", max_queries="64",
    )  # fmt: skip
    left, burn_in = 64, int(period)
    for round_ in range(mixed.rounds):
        assert mixed.plan_rounds(round_, left) == mixed.rounds
        left -= 8 if round_ < burn_in else 4


def test_an_experiment_says_that_its_budget_is_spent_and_how_to_go_on(uri, capsys):
    assert spend(uri, settings(), [8, 8, 8]) == NOTHING_TO_DO
    said = capsys.readouterr().out.splitlines()[-1]
    assert "24 of 24 queries are spent" in said and "raise labeling.max_queries" in said


def test_three_rounds_that_ask_nothing_end_it_in_words(uri, capsys):
    assert spend(uri, settings(), [8, 0, 0]) == 3, "two are not enough"
    fill(uri, 3, {"queries": 0})
    assert open_next(uri, settings()) == NOTHING_TO_DO
    said = capsys.readouterr().out.splitlines()[-1]
    assert "8 of 24" in said and "the last 3 rounds asked the oracle nothing" in said and "sampling.temperature" in said


def test_rounds_that_could_not_pay_are_not_rounds_that_saved_everything(uri):
    for _ in range(3):
        fill(uri, open_next(uri, settings()), {"queries": 0, "unpaid": 8})
    assert open_next(uri, settings()) == 3


def test_what_a_limit_left_undone_is_said_with_how_to_go_on(uri, capsys, monkeypatch):
    monkeypatch.setattr("oatflow.components.rounds.beginning.check_oracles", lambda settings, stores: None)
    wanted = settings(**JUDGED, judge_spending_limit="2")
    labeled, reached = {"queries": 5, "unpaid": 2, "lost": 1}, {"labeling": {"spending_limit": 2.0}}
    fill(uri, open_next(uri, wanted), labeled, facts=reached, evaluated={"evaluation_unpaid": 4})
    missing = "round 0 has 3 duels without an answer (2 not paid for, 1 lost), 4 held-out prompts without a verdict"
    assert missing in find_missing(Ledger.open(uri), 0)
    assert open_next(uri, wanted) == NOTHING_TO_DO
    said = capsys.readouterr().out.splitlines()[-1]
    assert missing in said and "--judge_spending_limit 4" in said


def test_a_round_that_lacks_nothing_says_nothing(uri):
    spend(uri, settings(), [8])
    assert find_missing(Ledger.open(uri), 0) == find_missing(Ledger.open(uri), -1) == ""


JUDGED = {"preference_oracle": "judge", "judge_model": "m", "judge_url": "http://x/v1", "judge_input_price": "1"}


@pytest.mark.parametrize("step", ["labeling", "evaluation"])
def test_a_spending_limit_that_was_reached_ends_it_until_more_is_given(uri, capsys, monkeypatch, step):
    monkeypatch.setattr("oatflow.components.rounds.beginning.check_oracles", lambda settings, stores: None)
    wanted = settings(**JUDGED, judge_spending_limit="2")
    fill(uri, open_next(uri, wanted), {"queries": 4}, facts={step: {"spending_limit": 2.0}})
    assert open_next(uri, wanted) == NOTHING_TO_DO
    said = capsys.readouterr().out.splitlines()[-1]
    assert "judge.judge_spending_limit=2 is reached" in said and "raise judge.judge_spending_limit" in said
    assert open_next(uri, settings(**JUDGED, judge_spending_limit="3")) == 1


def test_an_experiment_whose_members_label_everything_ends_after_its_rounds(uri, capsys):
    wanted = settings(
        exp_method="EnnEETS", num_samples="4", num_ensemble="3", model_rollout="true", burn_in_period="1",
        pure_model_based="true", max_queries="16",
    )  # fmt: skip
    while (round_ := open_next(uri, wanted)) != NOTHING_TO_DO:
        play_steps(uri, round_, "run")
    assert Ledger.open(uri).read_head().round == 1
    assert "members of the ensemble label all further pairs" in capsys.readouterr().out.splitlines()[-1]


def test_a_policy_without_an_optimizer_state_is_gone_on_from(uri):
    """Former versions kept none in the round that they took for the last one."""
    wanted = settings()
    spend(uri, wanted, [8])
    ledger = Ledger.open(uri)
    assert name_checkpoint(ledger, ledger.read_plan(1), wanted) == ("model",)


def test_the_steps_go_on_counting_where_the_optimizer_begins_anew(tmp_path):
    """Whatever the state was lost with, the learning rate goes on along its course."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=512, **sizes)).save_pretrained(tmp_path / "model")
    chosen = ExperimentSettings.parse(
        {"labeling": {"max_queries": 8}, "prompts": {"rollout_batch_size": 4}, "evaluation": {"eval_every": 0}}
    )
    oracle, tokenizer = SimulatedOracle("length", 0.1), WordTokenizer(512)
    experiment = InMemory(chosen, ScriptedEngine("start", 512), oracle, tmp_path / "model", tokenizer)
    prompts = [Prompt(thing, f"How was the {thing}?") for thing in ("walk", "meal", "film", "storm")]
    experiment.play_next(prompts)
    shutil.rmtree(experiment._find_folder(0) / "optimizer")
    reports = experiment.play_next(prompts).reports
    before, after = (reports[number, "policy"].counts for number in (0, 1))
    assert after["optimizer_steps"] == before["optimizer_steps"] + after["steps_this_round"] > before["optimizer_steps"]


# The budget may be raised later: that is how an experiment is extended.


def objects_of(uri, rounds):
    """The bytes of the tables and policies of some rounds."""
    store = Ledger.open(uri).store
    keys = [entry.key for number in rounds for entry in store.list(f"rounds/{number:05d}/")]
    timeless = (
        key
        for key in keys
        if not re.search(r"done\.json|claim\.json|round\.json|receipts-|asking-|running/.*json", key)
    )
    return {re.sub(r"policy/\d{4}-\w{6}/", "policy/", key): store.get(key).data for key in timeless}


def play_all(uri, wanted, run="run"):
    while (round_ := open_next(uri, wanted, run)) != NOTHING_TO_DO:
        play_steps(uri, round_, run)
    return Ledger.open(uri).read_head().round + 1


CERTAIN = {"exp_method": "EnnBAITS", "num_samples": "6", "num_ensemble": "3", "on_clash": "second_best"}


def test_an_extended_experiment_is_the_one_that_had_the_larger_budget_from_the_start(tmp_path):
    extended, whole = f"file://{tmp_path}/extended", f"file://{tmp_path}/whole"
    assert play_all(extended, settings(**CERTAIN, max_queries="16")) == 2
    assert play_all(extended, settings(**CERTAIN, max_queries="32"), "another run") == 4
    assert play_all(whole, settings(**CERTAIN, max_queries="32")) == 4
    assert objects_of(extended, (2, 3)) == objects_of(whole, (2, 3))
    plans = re.compile("plan.json")
    first, second = (
        {key: data for key, data in objects_of(uri, (0, 1)).items() if not plans.search(key)}
        for uri in (extended, whole)
    )
    assert first == second
    assert list(Ledger.open(extended).verify_objects())


def test_an_offline_experiment_is_extended_to_more_of_its_preferences(uri):
    offline = {"prompt_data": "oatflow:review-preferences", "chosen_key": "chosen", "rejected_key": "rejected"}
    without = {name: value for name, value in SMALL.items() if name != "reward"}
    small, large = (gather("scripted", None, without | offline | {"max_queries": most}) for most in ("10", "20"))
    assert (play_all(uri, small), play_all(uri, large)) == (2, 3)
    assert sum(Ledger.open(uri).find_done(number, "labeling").counts["labels"] for number in range(3)) == 8 + 2 + 4


def test_a_smaller_budget_than_the_experiment_began_with_is_refused(uri):
    open_next(uri, settings())
    with pytest.raises(SettingsChanged, match=r"labeling\.max_queries was 24 and is now 16, and it can only be raised"):
        open_next(uri, settings(max_queries="16"))


def test_what_a_run_raised_stays_raised_for_its_next_rounds_and_for_other_runs(uri, capsys):
    assert spend(uri, settings(), [8, 8, 8]) == NOTHING_TO_DO
    assert open_next(uri, settings(max_queries="48")) == 3
    fill(uri, 3, {"queries": 8})
    assert open_next_round(uri, "run") == 4
    assert Ledger.open(uri).read_plan(4).queries_left == 16
    fill(uri, 4, {"queries": 8})
    ledger = Ledger.open(uri)
    assert find_newest_settings(ledger).labeling.max_queries == 48
    release_claim(ledger.store, 4, "run")
    # A schedule gives what it was made with.
    assert open_next(uri, settings(), "scheduled") == 5
    assert Ledger.open(uri).read_plan(5).queries_left == 8
    assert read_settings(ledger.experiment.settings, ledger.read_claim(5).operational).labeling.max_queries == 48


def test_a_budget_between_is_not_used_and_the_run_is_told(uri, capsys):
    fill(uri, open_next(uri, settings(max_queries="48")), {"queries": 8})
    assert open_next(uri, settings(max_queries="56")) == 1
    fill(uri, 1, {"queries": 8})
    open_next(uri, settings(max_queries="50"))
    assert "labeling.max_queries=50: it was raised to 56 before, and stays so" in capsys.readouterr().out
