import time
from dataclasses import asdict, dataclass, replace

import pytest
from oatflow.components.evaluation.match import run_evaluation
from oatflow.components.ledger import layout, owner
from oatflow.components.ledger.claim import Claim, take_claim
from oatflow.components.ledger.ledger import Experiment, Head, Ledger
from oatflow.components.ledger.plan import Plan, PolicyPointer
from oatflow.components.ledger.sealed import digest_of, seal
from oatflow.components.records.records import Preference, Prompt, Verdict
from oatflow.components.records.table import from_parquet, to_parquet
from oatflow.components.store.transfer import Placed


@dataclass
class Rounds:
    """A small experiment on the scripted engine, some of whose rounds have made a policy."""

    ledger: Ledger
    log: str

    def make_policy(self, round_, weights, tmp_path):
        folder = tmp_path / f"policy-{round_}"
        folder.mkdir()
        (folder / "weights").write_text(weights)
        with self.ledger.step(round_, "policy", "a") as step:
            step.upload_folder("model", folder)
            step.finish(counts={}, timings={})

    def evaluate(self, round_, run="a"):
        return run_evaluation(self.ledger, round_, run)

    def table(self, round_, name, kind=Verdict):
        return from_parquet(self.ledger.read(round_, "evaluation", name), kind, name)

    def verdicts(self, round_):
        return self.table(round_, "verdicts.parquet")

    def judgements(self, round_):
        names = [placed.name for placed in self.ledger.done(round_, "evaluation").outputs]
        return [row for name in names if "judgements" in name for row in self.table(round_, name, Preference)]

    def objects(self, round_):
        prefix = f"{layout.round_folder(round_)}evaluation/"
        keys = [entry.key for entry in self.ledger.store.list(prefix) if not entry.key.endswith("done.json")]
        return {key: self.ledger.store.get(key).data for key in keys}

    def asked(self):
        try:
            with open(self.log) as file:
                return file.read().split()
        except FileNotFoundError:
            return []


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Begin an experiment of as many rounds as weights are given; equal weights are equal policies."""

    def begin(weights=("zero", "one", "two"), name="experiment", prompts=20, labeling=None, **evaluation):
        ledger = Ledger.open(f"file://{tmp_path}/{name}")
        table = [Prompt(f"prompt-{n}", f"What of number {n}?", f"Number {n} is good.") for n in range(prompts)]
        data = to_parquet(table, Prompt)
        ledger.store.put("prompts/eval.parquet", data)
        settings = {
            "prompts": {},
            "sampling": {"engine": "scripted"},
            "labeling": {"oracle_batch_size": 7, **(labeling or {})},
            "policy": {"trainer": "scripted"},
            "evaluation": evaluation,
            "ledger": {"seed": 3},
        }
        placed = Placed("eval", "prompts/eval.parquet", len(data), digest_of(data))
        ledger.write_document(layout.EXPERIMENT, Experiment(settings, "start", {"eval": placed}, {}).to_json())
        ledger.store.put(layout.HEAD, seal(asdict(Head(-1, "0" * 64, 0))))
        log = tmp_path / f"{name}.log"
        monkeypatch.setenv("OATFLOW_ORACLE_LOG", str(log))
        rounds = Rounds(ledger, str(log))
        plan = Plan(0, len(weights), (), *[PolicyPointer(-1, "start")] * 2, 0, 10)
        (tmp_path / name / "policies").mkdir()
        for round_, what in enumerate(weights):
            take_claim(ledger.store, round_, Claim("a", owner.Owner("here"), 1, 600, time.time() + 600))
            ledger.write_document(layout.plan(round_), replace(plan, round=round_).to_json())
            rounds.make_policy(round_, what, tmp_path / name / "policies")
        return rounds

    return begin
