from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from oatflow.components.ledger import layout
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.oracles import registry
from oatflow.components.records.plan import Plan, PolicyPointer
from oatflow.components.records.records import Candidate, Duel, Preference, Prompt, Receipt, duel_id
from oatflow.components.records.table import from_parquet, to_parquet
from oatflow.components.rounds.steps import run_labeling


@dataclass
class Round:
    """A round of a small experiment whose duels are drawn already."""

    ledger: Ledger
    number: int
    asked: Callable[[], list[str]]

    def label(self, run="a"):
        return run_labeling(self.ledger, self.number, run)

    def preferences(self):
        done = self.ledger.find_done(self.number, "labeling")
        names = [placed.name for placed in done.outputs if placed.name.startswith("preferences-")]
        parts = [self.ledger.read_output("labeling", name, self.number) for name in names]
        return [row for part in parts for row in from_parquet(part, Preference, "part")]

    def receipts(self):
        done = self.ledger.find_done(self.number, "labeling")
        names = [placed.name for placed in done.outputs if placed.name.startswith("receipts-")]
        parts = [self.ledger.read_output("labeling", name, self.number) for name in names]
        return [row for part in parts for row in from_parquet(part, Receipt, "part")]

    def objects(self):
        prefix = f"{layout.round_folder(self.number)}labeling/preferences"
        return {entry.key: self.ledger.store.get(entry.key).data for entry in self.ledger.store.list(prefix)}


@pytest.fixture
def begin(begin_ledger):
    """Begin an experiment: its duels, what is left of its budget, settings of prompts and of labeling."""

    def begin(duels, name="experiment", queries_left=1000, prompts=None, **labeling):
        settings = {
            "prompts": prompts or {}, "labeling": {"reward": "length", **labeling}, "ledger": {"seed": 7},
        }  # fmt: skip
        texts = {row.prompt_id: row.prompt for row in duels}
        prompts_there = tuple(Prompt(prompt_id, text) for prompt_id, text in texts.items())
        candidates = [
            Candidate(row.prompt_id, number, text, (1,), 1, "stop")
            for row in duels
            for number, text in enumerate((row.first, row.second))
        ]
        plan = Plan(0, 1, prompts_there, *[PolicyPointer(-1, "start")] * 2, 0, queries_left)
        ledger, asked = begin_ledger(name, settings, [plan])
        with ledger.open_step(0, "sampling", "a") as step:
            step.write_output("duels.parquet", to_parquet(duels, Duel))
            step.write_output("candidates.parquet", to_parquet(candidates, Candidate))
            step.mark_done(counts={}, timings={})
        return Round(ledger, 0, asked)

    return begin


def duel(number, first="one two", second="one"):
    text = f"Question {number}?"
    first = first.replace("#", str(number))
    return Duel(duel_id(text, first, second), f"prompt-{number}", text, first, second, 0, 1, first == second)


@pytest.fixture
def duels():
    """Ten different duels: the first wins those of even number; those of numbers 3 and 4 are clashes."""
    even = [duel(n) if n % 2 == 0 else duel(n, "one", "one two") for n in range(10)]
    return [
        replace(row, second=row.first, clash=True, duel_id=duel_id(row.prompt, row.first, row.first))
        if number in (3, 4)
        else row
        for number, row in enumerate(even)
    ]


@pytest.fixture
def scripted_oracle(monkeypatch):
    """Replace the simulated oracle by given answers."""

    def install(answer):
        class Scripted:
            identity = "scripted"
            known_reward = None
            paid = False
            spending = None

            def compare_duels(self, duels):
                return [answer(duel) for duel in duels]

        kind = replace(registry.ORACLES["simulated"], open=lambda settings, circumstances: Scripted())
        monkeypatch.setitem(registry.ORACLES, "simulated", kind)

    return install
