from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from oatflow.components.ledger import layout
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.records.plan import Plan, PolicyPointer
from oatflow.components.records.records import Duel, Preference, Prompt, Verdict
from oatflow.components.records.table import from_parquet, to_parquet
from oatflow.components.rounds.steps import run_evaluation


@dataclass
class Rounds:
    """A small experiment on the scripted engine, some of whose rounds have made a policy."""

    ledger: Ledger
    asked: Callable[[], list[str]]

    def make_policy(self, round_, weights, tmp_path):
        folder = tmp_path / f"policy-{round_}"
        folder.mkdir()
        (folder / "weights").write_text(weights)
        with self.ledger.open_step(round_, "policy", "a") as step:
            step.upload_folder("model", folder)
            step.mark_done(counts={}, timings={})

    def write(self, round_, room, name, data):
        """Leave a step behind that wrote one table."""
        with self.ledger.open_step(round_, room, "a") as step:
            step.write_output(name, data)
            step.mark_done(counts={}, timings={})

    def evaluate(self, round_, run="a"):
        return run_evaluation(self.ledger, round_, run)

    def table(self, round_, name, kind=Verdict):
        return from_parquet(self.ledger.read_output("evaluation", name, round_), kind, name)

    def verdicts(self, round_):
        return self.table(round_, "verdicts.parquet")

    def judgements(self, round_):
        names = [placed.name for placed in self.ledger.find_done(round_, "evaluation").outputs]
        return [row for name in names if name.startswith("judgements-") for row in self.table(round_, name, Preference)]

    def objects(self, round_):
        prefix = f"{layout.round_folder(round_)}evaluation/"
        keys = [entry.key for entry in self.ledger.store.list(prefix) if not entry.key.endswith("done.json")]
        return {key: self.ledger.store.get(key).data for key in keys}


@pytest.fixture
def begin(begin_ledger, tmp_path):
    """Begin an experiment of as many rounds as weights are given; equal weights are equal policies."""

    def begin(weights=("zero", "one", "two"), name="experiment", prompts=20, labeling=None, **evaluation):
        table = [Prompt(f"prompt-{n}", f"What of number {n}?", f"Number {n} is good.") for n in range(prompts)]
        settings = {
            "prompts": {},
            "sampling": {"engine": "scripted"},
            "labeling": {"oracle_batch_size": 7, **(labeling or {})},
            "policy": {"trainer": "scripted"},
            "evaluation": evaluation,
            "ledger": {"seed": 3},
        }
        plan = Plan(0, len(weights), (), *[PolicyPointer(-1, "start")] * 2, 0, 10)
        plans = [replace(plan, round=round_) for round_ in range(len(weights))]
        rounds = Rounds(*begin_ledger(name, settings, plans, {"eval": table}))
        (tmp_path / name / "policies").mkdir()
        for round_, what in enumerate(weights):
            rounds.write(round_, "sampling", "duels.parquet", to_parquet([], Duel))
            rounds.write(round_, "labeling", "preferences-0000.parquet", to_parquet([], Preference))
            rounds.make_policy(round_, what, tmp_path / name / "policies")
        return rounds

    return begin
