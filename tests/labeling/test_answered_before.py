"""Duels that come round again, in a later epoch, are answered from the ledger."""

import pytest
from oatflow.components.records.plan import Plan, PolicyPointer
from oatflow.components.records.records import Candidate, Duel, Preference, Prompt
from oatflow.components.records.table import from_parquet, to_parquet
from oatflow.components.rounds.steps import run_labeling

from .conftest import duel

DUELS = [duel(number) for number in range(4)]


@pytest.fixture
def experiment(begin_ledger):
    """Three rounds of two prompts out of four: the third asks about those of the first again, with one new answer."""
    prompts = [Prompt(row.prompt_id, row.prompt) for row in DUELS]
    rounds = [DUELS[:2], DUELS[2:], [DUELS[0], duel(1, "three words here")]]
    plans = [
        Plan(number, 3, tuple(prompts[:2]), *[PolicyPointer(-1, "s")] * 2, 2 * number, 6 - 2 * number)
        for number in range(3)
    ]
    settings = {
        "prompts": {"rollout_batch_size": 2}, "labeling": {"reward": "length", "bt_sample": True},
        "ledger": {"seed": 7},
    }  # fmt: skip
    ledger, asked = begin_ledger("again", settings, plans, {"train": prompts})
    for number, duels in enumerate(rounds):
        with ledger.open_step(number, "sampling", "a") as step:
            step.write_output("duels.parquet", to_parquet(duels, Duel))
            step.write_output("candidates.parquet", to_parquet([], Candidate))
            step.mark_done(counts={}, timings={})
        run_labeling(ledger, number, "a")
    return ledger, asked


def preferences(ledger, number):
    return from_parquet(ledger.read_output("labeling", "preferences-0000.parquet", number), Preference, "part")


def test_a_duel_that_was_answered_in_an_earlier_round_costs_no_query(experiment):
    ledger, asked = experiment
    assert len(asked()) == len(set(asked())) == 5
    counts = ledger.find_done(2, "labeling").counts
    assert (counts["queries"], counts["reused"]) == (1, 1)
    before, again = preferences(ledger, 0)[0], preferences(ledger, 2)[0]
    assert (before.duel_id, before.first_wins, before.oracle) == (again.duel_id, again.first_wins, again.oracle)
    assert again.chosen in ("first", "second")
