"""What the strategies pick by default, by hand-worked cases; Oat's laws are in test_laws.py."""

from collections import Counter

import pytest
import torch
from oatflow.components.exploration.registry import STRATEGIES
from oatflow.components.exploration.settings import ExplorationSettings
from oatflow.components.exploration.strategies import Beliefs, draw_orders, pair_first_two, pick_best_of_n
from oatflow.components.seeds import derive

ENSEMBLE = [name for name, strategy in STRATEGIES.items() if strategy.needs == "ensemble"]
PICK = {name: STRATEGIES[name].load_pick() for name in ENSEMBLE}


def beliefs(rewards, alike=None, order=None):
    """rewards: of one prompt, a row a member."""
    values = torch.tensor(rewards, dtype=torch.float64)[:, None]
    texts = torch.arange(values.shape[2]) if alike is None else torch.tensor(alike)
    return Beliefs(values, texts[None], torch.tensor([order or list(range(len(values)))]))


def pick(method, believed, **settings):
    (pair,) = PICK[method](believed, ExplorationSettings(exp_method=method, **settings)).tolist()
    return tuple(pair)


def test_passive_exploration_takes_the_first_two_of_each_prompt():
    assert pair_first_two(3).tolist() == [[0, 1], [0, 1], [0, 1]]
    assert pair_first_two(1).tolist() == [[0, 1]]


def test_ensemble_passive_takes_the_first_two_whatever_they_are_worth():
    assert pick("EnnPassive", beliefs([[0.0, 0.0, 9.0], [0.0, 0.0, 8.0]])) == (0, 1)


def test_one_candidate_cannot_duel():
    with pytest.raises(AssertionError, match="1 candidates cannot duel"):
        beliefs([[1.0], [2.0]])


def test_beliefs_of_another_number_of_prompts_are_not_broadcast():
    with pytest.raises(AssertionError, match=r"order has shape \(1, 2\), expected \(3, 2\)"):
        Beliefs(torch.zeros(2, 3, 4), torch.arange(4).repeat(3, 1), torch.tensor([[0, 1]]))
    with pytest.raises(AssertionError, match=r"alike has shape \(1, 4\), expected \(3, 4\)"):
        Beliefs(torch.zeros(2, 3, 4), torch.arange(4)[None], torch.tensor([[0, 1]] * 3))


def test_explore_and_exploit_lets_the_champions_of_the_first_two_members_that_differ_duel():
    believed = beliefs([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], order=[1, 0, 3, 2])
    assert pick("EnnEETS", believed) == (0, 1)


def test_explore_and_exploit_asks_no_more_members_than_enn_max_try():
    believed = beliefs([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert pick("EnnEETS", believed, enn_max_try=2) == (0, 0)
    assert pick("EnnEETS", believed, enn_max_try=3) == (0, 1)
    assert pick("EnnEETS", believed, enn_max_try=9) == (0, 1)


def test_explore_and_exploit_takes_champions_with_equal_texts_for_one():
    believed = beliefs([[1.0, 0.0, 0.9], [0.9, 0.0, 1.0], [0.0, 1.0, 0.0]], alike=[0, 1, 0])
    assert pick("EnnEETS", believed) == (0, 1)


# The members think that candidate 0 is better by 4 or 8 than 1, which is nearly sure, and by 0.1 or 1 than 2.
SURE_AND_UNSURE = [[0.0, -4.0, -0.1], [0.0, -8.0, -1.0]]


def test_best_arm_identification_challenges_where_the_winner_is_least_sure():
    """Var(0.982, 0.9997) = 0.0002 and Var(0.525, 0.731) = 0.021; of the differences, 8 and 0.4."""
    believed = beliefs(SURE_AND_UNSURE)
    assert pick("EnnBAITS", believed) == (0, 2)
    assert pick("EnnBAITS", believed, exp_law="oat") == (0, 1)


def test_uncertainty_takes_the_pair_whose_winner_is_least_sure():
    """Var(0.0198, 0.0009) = 0.0002 for the third pair, whose differences are -3.9 and -7."""
    believed = beliefs(SURE_AND_UNSURE)
    assert pick("EnnUncertainty", believed) == (0, 2)
    assert pick("EnnUncertainty", believed, exp_law="oat") == (0, 1)


def test_best_arm_identification_samples_its_champion_from_the_prompts_first_member():
    rewards = [[1.0, 0.0, 0.5], [0.0, 0.1, 0.7], [0.0, 2.0, 0.6]]
    champions = [pick("EnnBAITS", beliefs(rewards, order=order))[0] for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1])]
    assert champions == [0, 2, 1]


@pytest.mark.parametrize("method", ["EnnBAITS", "EnnUncertainty", "DRTS", "DeltaUCB"])
def test_a_text_never_duels_itself_where_another_differs(method):
    """Candidates 0 and 1 say the same; the members agree in everything."""
    first, second = pick(method, beliefs([[1.0, 1.0, 0.0]] * 3, alike=[0, 0, 2]))
    assert (first == 2) != (second == 2)


@pytest.mark.parametrize("method", ENSEMBLE)
def test_where_all_texts_are_equal_there_is_a_pair_nevertheless(method):
    first, second = pick(method, beliefs([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]], alike=[0, 0, 0]))
    assert {first, second} <= {0, 1, 2}


def test_members_that_agree_leave_best_arm_identification_the_lowest_other_candidate():
    assert pick("EnnBAITS", beliefs([[1.0, 0.5, 0.7]] * 4)) == (0, 1)
    assert pick("EnnBAITS", beliefs([[0.5, 1.0, 0.7]] * 4)) == (1, 0)
    assert pick("EnnUncertainty", beliefs([[1.0, 0.5, 0.7]] * 4)) == (0, 1)


def test_double_reverse_thompson_sampling_lets_one_members_best_duel_anothers_worst():
    rewards = [[3.0, 2.0, 1.0], [2.0, 1.0, 3.0], [1.0, 3.0, 2.0]]
    assert pick("DRTS", beliefs(rewards, order=[0, 1, 2])) == (0, 1)
    assert pick("DRTS", beliefs(rewards, order=[1, 2, 0])) == (2, 0)
    assert pick("DRTS", beliefs(rewards, order=[2, 0, 1])) == (1, 2)


def test_double_reverse_thompson_sampling_asks_again_while_the_worst_is_the_best():
    """The second member finds the first one's best the worst; the third has another worst."""
    assert pick("DRTS", beliefs([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])) == (0, 1)


def test_double_reverse_thompson_sampling_falls_back_on_the_first_members_own_worst():
    assert pick("DRTS", beliefs([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 3.0, 2.0]])) == (0, 2)


def test_delta_ucb_takes_the_largest_upper_less_lower_bound():
    """Means 1, 0.6, 0 and deviations 0, 0, sqrt(2): 1 + sqrt(2) for 0 against 2. Then 1, 0.9, 1.1 and 0, 0, 1.56."""
    assert pick("DeltaUCB", beliefs([[1.0, 0.6, -1.0], [1.0, 0.6, 1.0]])) == (0, 2)
    assert pick("DeltaUCB", beliefs([[1.0, 0.9, 0.0], [1.0, 0.9, 2.2]])) == (2, 1)


def test_delta_ucbs_bounds_are_each_candidates_own():
    """Means 0, -1, 0.1 and deviations 5.66, 5.66, 0, though both members are sure that 0 is better than 1 by 1."""
    assert pick("DeltaUCB", beliefs([[4.0, 3.0, 0.1], [-4.0, -5.0, 0.1]])) == (0, 1)


def test_without_optimism_delta_ucb_takes_the_best_and_the_worst_on_average():
    assert pick("DeltaUCB", beliefs([[0.0, 3.0, 1.0], [9.0, 3.0, 1.0]]), ucb_beta=0.0) == (0, 2)
    assert pick("DeltaUCB", beliefs([[0.0, 3.0, 1.0], [2.0, 3.0, 1.5]]), ucb_beta=0.0) == (1, 0)


@pytest.mark.parametrize("method", [name for name in ENSEMBLE if STRATEGIES[name].least_members == 1])
def test_an_ensemble_of_one_picks(method):
    expected = {"EnnPassive": (0, 1), "EnnEETS": (2, 2), "DRTS": (2, 1), "DeltaUCB": (2, 1)}[method]
    assert pick(method, beliefs([[0.5, 0.0, 1.0]])) == expected


@pytest.mark.parametrize("method", [name for name in ENSEMBLE if STRATEGIES[name].least_members == 2])
def test_strategies_that_go_by_disagreement_refuse_an_ensemble_of_one_by_name(method):
    with pytest.raises(AssertionError, match=f"{method} needs at least 2 members"):
        pick(method, beliefs([[0.5, 0.0, 1.0]]))


@pytest.mark.parametrize("method", ENSEMBLE)
def test_a_prompt_gets_the_same_pair_alone_as_among_others(method):
    rewards = torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(3))
    alike, order = torch.arange(6).repeat(7, 1), draw_orders(range(7), 5)
    settings = ExplorationSettings(exp_method=method)
    together = PICK[method](Beliefs(rewards, alike, order), settings)
    alone = [
        PICK[method](Beliefs(rewards[:, one], alike[one], order[one]), settings)
        for one in (slice(prompt, prompt + 1) for prompt in range(7))
    ]
    assert together.tolist() == torch.cat(alone).tolist()


@pytest.mark.parametrize("method", ENSEMBLE)
def test_picking_leaves_the_beliefs_as_they_are(method):
    rewards = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(4))
    believed = Beliefs(rewards.clone(), torch.arange(6).repeat(3, 1), draw_orders(range(3), 5))
    pairs = PICK[method](believed, ExplorationSettings(exp_method=method))
    assert pairs.shape == (3, 2) and pairs.dtype == torch.int64
    assert torch.equal(believed.rewards, rewards)


def test_the_best_of_n_of_a_single_prompt_or_member_is_no_special_case():
    assert pick_best_of_n(torch.tensor([[[0.0, 2.0, 1.0]]])).tolist() == [1]
    assert pick_best_of_n(torch.tensor([[[0.0, 2.0, 1.0]], [[4.0, 1.0, 1.0]]])).tolist() == [0]


def test_each_prompt_asks_the_members_in_an_order_of_its_own():
    """The first members of two prompts are independent: each of the 9 combinations once in nine."""
    seeds = [[derive(7, round_, prompt, "member") for prompt in ("p", "q")] for round_ in range(9000)]
    firsts = Counter(tuple(draw_orders(pair, 3)[:, 0].tolist()) for pair in seeds)
    sigma = (9000 / 9 * 8 / 9) ** 0.5
    assert len(firsts) == 9
    assert all(abs(count - 1000) < 5 * sigma for count in firsts.values())


def test_the_order_of_a_prompts_members_depends_on_its_seed_alone():
    orders = draw_orders([5, 6, 2**63 - 1], 20)
    assert torch.equal(draw_orders([6], 20)[0], orders[1])
    assert all(sorted(order) == list(range(20)) for order in orders.tolist())
    assert len({tuple(order) for order in orders.tolist()}) == 3
    assert draw_orders([5], 1).tolist() == [[0]]
