"""The program of a round in memory makes what the same program makes on a ledger."""

from contextlib import contextmanager, nullcontext

import pytest
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.oracles.simulated import SimulatedOracle
from oatflow.components.prompts.template import WordTokenizer
from oatflow.components.records.keep import Memory
from oatflow.components.reward_model.encoder import ScriptedEncoder
from oatflow.components.rounds.experiment import read_settings
from oatflow.components.rounds.inputs import Tools
from oatflow.components.rounds.opening import open_round
from oatflow.components.rounds.round import play_round
from oatflow.components.rounds.steps import gather_round
from oatflow.components.rounds.train_step import train_without_job
from oatflow.components.sampling.engine import Policy, ScriptedEngine
from oatflow.pipelines.alignment.config import gather

from .round_by_step import play_steps

SMALL = {"rollout_batch_size": "6", "max_queries": "12", "max_eval": "4", "reward": "length", "num_samples": "3"}
CASES = {
    "passive": {"objective": "explore_and_exploit"},
    "EnnBAITS": {"exp_method": "EnnBAITS", "num_ensemble": "3", "num_bon": "2"},
    "APL": {"exp_method": "APL"},
    "XPO": {"exp_method": "XPO", "num_samples": "2"},
}


@contextmanager
def open_policy(pointer):
    yield Policy(pointer.digest, lambda: pytest.fail("a scripted policy has no weights"))


@pytest.mark.parametrize("case", CASES)
def test_a_round_in_memory_makes_the_bytes_that_it_makes_on_a_ledger(tmp_path, case):
    uri, flags = f"file://{tmp_path}/experiment", gather("scripted", None, SMALL | CASES[case])
    on_ledger, memory = Ledger.open(uri), Memory()
    for round_ in (0, 1):
        assert open_round(uri, flags.model_dump(mode="json"), "run") == round_
        play_steps(uri, round_, "run")
        tools = Tools(
            load_tokenizer=WordTokenizer,
            open_policy=open_policy,
            open_engine=lambda policy: nullcontext(ScriptedEngine(policy.digest)),
            open_encoder=ScriptedEncoder,
            open_oracle=lambda duels, name: (SimulatedOracle("length", 0.1), {}),
            train_policy=train_without_job,
            find_trained_policy=lambda round_=round_: on_ledger.policy_after(round_),
        )
        play_round(gather_round(on_ledger, round_, read_settings(on_ledger.experiment.settings, {})), tools, memory)
        for step in on_ledger.read_plan(round_).rooms:
            names = {name for name in memory.list_outputs(step, round_) if "receipts" not in name}
            assert names == {name for name in on_ledger.list_outputs(step, round_) if "receipts" not in name}
            for name in names:
                assert memory.read_output(step, name, round_) == on_ledger.read_output(step, name, round_), name
            mine, theirs = memory.read_report(step, round_), on_ledger.read_report(step, round_)
            assert mine.counts == theirs.counts
            assert {name: fact for name, fact in mine.facts.items() if name != "latency"} == {
                name: fact for name, fact in theirs.facts.items() if name != "latency"
            }
