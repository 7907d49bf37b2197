"""Oat's strategies have Oat's laws: exactly, over all 120 orders of five members, which seeds draw alike."""

import ast
import json
from collections import Counter
from itertools import permutations
from math import sqrt
from pathlib import Path

import pytest
import torch
from oatflow.components.exploration.settings import ExplorationSettings
from oatflow.components.exploration.strategies import Beliefs, draw_orders, pick_best_of_n, repair_clashes

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_exploration.json").read_text())["exploration"]
REWARDS = torch.tensor(GOLDEN["rewards_E_M_N_1"], dtype=torch.float64).squeeze(-1)
MEMBERS, PROMPTS, CANDIDATES = REWARDS.shape
LAWS = {
    (method, setting): law
    for method, settings in GOLDEN["strategies"].items()
    for setting, law in settings.items()
    if isinstance(law, dict) and "exact_joint_law_over_batch" in law
}
SETTINGS = {
    "default": {},
    "default(max_try=E)": {},
    "max_try=2": {"enn_max_try": 2},
    "allow_second_best": {"on_clash": "second_best"},
    "max_try=1,allow_second_best": {"enn_max_try": 1, "on_clash": "second_best"},
}
DRAWS = 20_000


def oat(method, setting="default"):
    return ExplorationSettings(exp_method=method, exp_law="oat", **({"on_clash": "keep"} | SETTINGS[setting]))


def all_different(prompts):
    return torch.arange(CANDIDATES).repeat(prompts, 1)


def picked(rewards, order, settings, chance=None):
    """The pairs after clashes were repaired, as tuples."""
    beliefs = Beliefs(rewards, all_different(rewards.shape[1]), order)
    chance = torch.zeros(rewards.shape[1], dtype=torch.long) if chance is None else chance
    pairs = settings.strategy.load_pick()(beliefs, settings)
    pairs, kept = repair_clashes(pairs, beliefs, beliefs.alike, chance, settings)
    assert kept.all()
    return [tuple(pair) for pair in pairs.tolist()]


def frequencies(outcomes):
    return {outcome: count / len(outcomes) for outcome, count in Counter(outcomes).items()}


def law_of(written):
    return {ast.literal_eval(outcome): share for outcome, share in written.items()}


def assert_within_five_sigma(seen, law, draws):
    assert set(seen) <= set(law)
    for outcome, share in law.items():
        assert abs(seen.get(outcome, 0) - share) <= 5 * sqrt(share * (1 - share) / draws) + 1e-9, outcome


def test_the_golden_file_holds_the_law_of_every_strategy_of_oat():
    assert sorted(LAWS) == [
        ("EnnBAITS", "default"),
        ("EnnEETS", "allow_second_best"),
        ("EnnEETS", "default(max_try=E)"),
        ("EnnEETS", "max_try=1,allow_second_best"),
        ("EnnEETS", "max_try=2"),
        ("EnnPassive", "default"),
        ("EnnUncertainty", "default"),
    ]


@pytest.mark.parametrize("method, setting", LAWS)
def test_every_order_of_the_members_counted_once_gives_oats_law(method, setting):
    rounds = [
        tuple(picked(REWARDS, torch.tensor([order] * PROMPTS), oat(method, setting)))
        for order in permutations(range(MEMBERS))
    ]
    law = LAWS[method, setting]
    assert len(rounds) == 120
    assert frequencies(rounds) == pytest.approx(law_of(law["exact_joint_law_over_batch"]), abs=1e-9)
    for prompt, written in enumerate(law["exact_pair_law_per_prompt(first,second)"]):
        pairs = [round_[prompt] for round_ in rounds]
        assert frequencies(pairs) == pytest.approx(law_of(written), abs=1e-9)


@pytest.mark.parametrize("method, setting", LAWS)
def test_what_oat_drew_is_within_five_sigma_of_the_law(method, setting):
    law = LAWS[method, setting]
    exact, drawn = law["exact_pair_law_per_prompt(first,second)"], law["empirical_pair_freq_per_prompt"]
    for prompt in range(PROMPTS):
        assert_within_five_sigma(law_of(drawn[prompt]), law_of(exact[prompt]), law["empirical_draws"])


def test_what_20000_seeds_draw_is_within_five_sigma_of_all_orders_alike():
    """With the exact law over all orders, this gives every strategy its law over seeds."""
    drawn = frequencies([tuple(order) for order in draw_orders(range(DRAWS), MEMBERS).tolist()])
    assert_within_five_sigma(drawn, {order: 1 / 120 for order in permutations(range(MEMBERS))}, DRAWS)
    assert len(drawn) == 120


@pytest.mark.parametrize("method", ["EnnEETS", "EnnBAITS", "EnnUncertainty"])
def test_members_that_all_agree_pick_as_oats(method):
    unanimous = REWARDS[:1].expand(MEMBERS, -1, -1)
    pairs = picked(unanimous, draw_orders(range(PROMPTS), MEMBERS), oat(method))
    golden = GOLDEN["zero_variance_ensemble"][method]
    assert pairs == list(zip(golden["first"], golden["second"], strict=True))


@pytest.mark.parametrize("method, key", [("EnnEETS", ""), ("EnnBAITS", "_baits")])
def test_members_asked_in_their_own_order_pick_what_oats_explorer_picks(method, key):
    golden = GOLDEN[f"explorer_select_identity_order{key}"]
    pairs = picked(REWARDS, torch.arange(MEMBERS).repeat(PROMPTS, 1), oat(method))
    texts = {str(prompt): [f"p{prompt}c{number}" for number in pair] for prompt, pair in enumerate(pairs)}
    assert texts == golden["dueling_candidates"]
    assert [first == second for first, second in pairs] == golden["init_clash"]


def test_a_random_repair_has_oats_law_but_never_gives_up():
    """Oat draws three times among all candidates, and then takes the last: 1/3 each, but for that."""
    settings = ExplorationSettings(exp_method="EnnEETS", exp_law="oat", on_clash="random")
    chance = torch.randint(2**63 - 1, (DRAWS,), generator=torch.Generator().manual_seed(1))
    for prompt in (1, 3):
        rewards = REWARDS[:, prompt : prompt + 1].expand(-1, DRAWS, -1)
        pairs = picked(rewards, draw_orders(range(DRAWS), MEMBERS), settings, chance)
        champion = pairs[0][0]
        law = {(champion, other): 1 / 3 for other in range(CANDIDATES) if other != champion}
        assert_within_five_sigma(frequencies(pairs), law, DRAWS)
        oats = {
            tuple(int(text[-1]) for text in pair.split(" vs ")): share
            for pair, share in GOLDEN["exp_rnd_sample_freq"]["per_prompt"][prompt].items()
        }
        # Oat gives up once in 4^3, then the last candidate it is: (1 - 1/64)/3, and 1/64 more for the last.
        given_up = {pair: (1 - 1 / 64) / 3 + (pair[1] == CANDIDATES - 1) / 64 for pair in law}
        assert_within_five_sigma(oats, given_up, GOLDEN["exp_rnd_sample_freq"]["draws"])


def test_the_best_of_n_has_the_highest_mean_of_all_members_and_of_equals_the_first():
    assert pick_best_of_n(REWARDS).tolist() == GOLDEN["best_of_n"]["index"]
