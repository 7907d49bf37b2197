"""Oat's own ensemble and strategies on a linear bandit, at all its defaults: the table that Oat's code gave, again."""

import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from oatflow.components.reward_model.settings import RewardModelSettings
from oatflow.components.simulator.play import Rules
from oatflow.components.simulator.tournament import average_play, play_tournament, select_late_rounds
from oatflow.components.simulator.worlds import GaussianWorld, LinearReward

TOY = json.loads((Path(__file__).parents[1] / "golden" / "oat_exploration.json").read_text())["toy_bandit"]
SEEDS = 5
PAIRS = 200
"""Pairs that Oat's accuracy is of; ours is of all pairs of the same held-out prompts."""


@pytest.fixture(scope="module")
def played():
    setup = TOY["setup"]
    reward = LinearReward(np.array(setup["w"]))
    worlds = [GaussianWorld(reward, setup["candidates"], setup["d"], seed, held_out_seed=4321) for seed in range(SEEDS)]
    habits = RewardModelSettings.parse({"rm_full_batches": True, "rm_mask": "broadcast"})
    per_round = setup["prompts_per_round"]
    rules = Rules(setup["rounds"] * per_round, per_round, law="oat", reward_model=habits)
    return play_tournament(worlds, list(TOY["results"]), rules, jobs=2)


def close(values, golden, more=0.0):
    """Within three standard errors, ours and Oat's combined; `more`: another one of Oat's, squared."""
    mean, error = golden
    ours = np.std(values, ddof=1) / sqrt(len(values))
    return abs(np.mean(values) - mean) <= 3 * sqrt(ours**2 + error**2 + more)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", TOY["results"])
def test_oats_table(played, strategy):
    golden, plays = TOY["results"][strategy], played.of(strategy)
    assert all(play.spent == 2560 and len(select_late_rounds(play)) == 10 for play in plays)

    def ended(measure):
        return [np.mean([getattr(moment, measure) for moment in select_late_rounds(play)]) for play in plays]

    everywhere = [average_play(play, "duel_regret") for play in plays]
    assert close(everywhere, golden["mean_duel_regret(all rounds)[mean,se]"])
    assert close(ended("duel_regret"), golden["mean_duel_regret(last 10)[mean,se]"])
    assert close(ended("simple_regret"), golden["best_of_n_simple_regret(last 10)[mean,se]"])
    assert close(ended("clash_rate"), golden["clash_ratio(last 10)[mean,se]"])
    share = golden["pair_accuracy(last 10)[mean,se]"]
    assert close(ended("pair_accuracy"), share, more=share[0] * (1 - share[0]) / PAIRS)


@pytest.mark.slow
def test_who_explores_to_exploit_regrets_least_and_who_only_explores_as_much_as_random(played):
    def regret(strategy):
        return np.mean([average_play(play, "duel_regret") for play in played.of(strategy)])

    others = min(map(regret, ("EnnUncertainty", "EnnPassive", "random")))
    assert regret("EnnEETS") < regret("EnnBAITS") < others
