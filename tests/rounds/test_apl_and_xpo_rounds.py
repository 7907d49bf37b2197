"""Whole experiments by strategies that ask the policy itself, in a directory: its steps in the order of the data."""

import subprocess
import sys

import pytest
from oatflow.components.errors import SettingsError
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.records.records import Candidate, Duel
from oatflow.components.records.table import from_parquet
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_round
from oatflow.components.rounds.steps import run_evaluation, run_fit, run_labeling, run_sampling, run_train
from oatflow.pipelines.alignment.config import gather

SMALL = {"rollout_batch_size": "8", "max_queries": "12", "max_eval": "6", "reward": "length"}


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Return what runs an experiment to its end."""

    def run(**settings):
        uri = f"file://{tmp_path}/ledger"
        monkeypatch.setenv("OATFLOW_ORACLE_LOG", str(tmp_path / "asked"))
        given = gather("scripted", None, {**SMALL, **settings}).model_dump(mode="json")
        while (round_ := open_round(uri, given, "run")) != NOTHING_TO_DO:
            ledger = Ledger.open(uri)
            fit = (run_fit,) if ledger.read_plan(round_).learns_rewards else ()
            for step in (run_sampling, run_labeling, *fit, run_train, run_evaluation):
                step(ledger, round_, "run")
            close_round(uri, round_, "run")
        return Ledger.open(uri)

    return run


def table(ledger, round_, kind, name):
    return from_parquet(ledger.read_output("sampling", name, round_), kind, name)


def duels(ledger, round_):
    return table(ledger, round_, Duel, "duels.parquet")


def spent(ledger):
    last = ledger.read_plan(0).rounds - 1
    return ledger.read_plan(last).queries_spent + ledger.find_done(last, "labeling").counts["queries"]


@pytest.mark.parametrize("keep", [{}, {"apl_keep": "3"}, {"num_samples": "2", "apl_certainty_only": "true"}])
def test_active_learning_labels_some_prompts_of_a_round_and_lasts_longer_for_it(finished, keep):
    ledger = finished(exp_method="APL", **{"num_samples": "4", **keep})
    kept = int(keep.get("apl_keep", 4))
    assert ledger.read_plan(0).rounds == 12 // kept
    for round_ in range(12 // kept):
        assert len(ledger.read_plan(round_).prompts) in (8, ledger.read_plan(round_).queries_left)
        assert len(duels(ledger, round_)) <= kept
    clashes = sum(duel.clash for round_ in range(12 // kept) for duel in duels(ledger, round_))
    assert 12 - clashes - kept <= spent(ledger) <= 12


def test_active_learning_with_a_reward_model_learned_beside_picks_the_same_duels(finished, tmp_path):
    ledger = finished(exp_method="APL", num_samples="4", learn_rm="true", num_ensemble="4")
    for round_ in range(3):
        rows = duels(ledger, round_)
        assert 0 < len(rows) <= 4 and {row.strategy for row in rows} == {"APL"}
        assert all(row.predicted is not None for row in rows)


def test_every_duel_of_xpo_is_one_of_policy_and_reference(finished):
    ledger = finished(exp_method="XPO")
    assert ledger.read_plan(0).rounds == 2
    for round_ in range(2):
        rows = table(ledger, round_, Candidate, "candidates.parquet")
        assert [row.candidate for row in rows] == [0, 1] * len(ledger.read_plan(round_).prompts)
        assert all({duel.first_candidate, duel.second_candidate} == {0, 1} for duel in duels(ledger, round_))
        assert {duel.strategy for duel in duels(ledger, round_)} == {"XPO"}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"xpo_alpha": "0.1"}, "policy.xpo_alpha=0.1: exp_method='passive' ignores it"),
        ({"exp_method": "XPO", "num_samples": "3"}, "sampling.num_samples=3: exp_method='XPO'"),
        (
            {"exp_method": "XPO", "dap_algo": "ipo"},
            "policy.dap_algo='ipo': exp_method='XPO' adds a term to the loss 'dpo'",
        ),
        ({"exp_method": "APL", "apl_keep": "9"}, "exploration.apl_keep=9: a round has prompts.rollout_batch_size=8"),
        ({"exp_method": "APL", "apl_certainty_only": "true", "num_samples": "3"}, "sampling.num_samples=3"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(flags, named):
    with pytest.raises(SettingsError) as refused:
        gather("scripted", None, {**SMALL, **flags})
    assert named in str(refused.value)


@pytest.mark.slow
def test_sampling_for_passive_duels_never_imports_torch():
    program = """
import sys
from oatflow.components.exploration.choice import choose_duels
from oatflow.components.exploration.settings import ExplorationSettings
from oatflow.components.records.plan import Plan, PolicyPointer
from oatflow.components.records.records import Candidate, Prompt
import oatflow.components.sampling.generation
plan = Plan(0, 1, (Prompt("p", "Why?"),), *[PolicyPointer(-1, "a")] * 2, 0, 9)
drawn = [Candidate("p", number, str(number), (1,), 1, "stop") for number in range(2)]
for method in ("passive", "XPO"):
    (duel,) = choose_duels(plan.prompts, plan.round, drawn, ExplorationSettings(exp_method=method), 7).duels
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
