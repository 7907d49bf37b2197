"""What becomes of a duel of equal texts."""

import torch
from oatflow.components.exploration.settings import ExplorationSettings
from oatflow.components.exploration.strategies import Beliefs, repair_clashes

# Two clashes, of one candidate and of two with one text, and a duel.
PAIRS = torch.tensor([[1, 1], [0, 2], [2, 0]])
ALIKE = torch.tensor([[0, 1, 2, 3], [0, 1, 0, 3], [0, 1, 2, 3]])
CHANCE = torch.tensor([4, 7, 8])
# The third member has another champion than the first two: 3 instead of 1, and 1 instead of the text of both 0 and 2.
REWARDS = torch.tensor(
    [
        [[0.0, 1.0, 0.3, 0.2], [1.0, 0.1, 1.0, 0.2], [0.0, 0.0, 1.0, 0.0]],
        [[0.8, 1.0, 0.3, 0.2], [1.0, 0.3, 1.0, 0.2], [0.0, 0.0, 1.0, 0.0]],
        [[0.0, 1.0, 0.3, 2.0], [0.0, 1.0, 0.0, 0.2], [0.0, 0.0, 1.0, 0.0]],
    ]
)
BELIEFS = Beliefs(REWARDS, ALIKE, torch.tensor([[0, 1, 2], [1, 0, 2], [0, 1, 2]]))


def repaired(on_clash, beliefs=BELIEFS, pairs=PAIRS, alike=ALIKE, chance=CHANCE, **settings):
    settings = ExplorationSettings(on_clash=on_clash, **({"exp_method": "EnnEETS"} | settings))
    pairs, kept = repair_clashes(pairs, beliefs, alike, chance, settings)
    return [tuple(pair) for pair in pairs.tolist()], kept.tolist()


def test_a_kept_clash_stays_as_it_is():
    assert repaired("keep") == ([(1, 1), (0, 2), (2, 0)], [True, True, True])


def test_skipping_drops_clashes_alone():
    assert repaired("skip") == ([(1, 1), (0, 2), (2, 0)], [False, False, True])


def test_redrawing_asks_further_members_for_another_champion():
    assert repaired("redraw") == ([(1, 3), (0, 1), (2, 0)], [True, True, True])


def test_redrawing_asks_also_members_that_the_strategy_was_not_to_ask():
    assert repaired("redraw", enn_max_try=1)[0] == [(1, 3), (0, 1), (2, 0)]


def test_where_all_members_agree_a_redraw_leaves_the_clash():
    agreed = Beliefs(REWARDS[:1].expand(3, -1, -1), ALIKE, BELIEFS.order)
    assert repaired("redraw", agreed) == ([(1, 1), (0, 2), (2, 0)], [True, True, True])


def test_the_second_best_is_the_first_members_best_of_another_text():
    assert repaired("second_best") == ([(1, 2), (0, 1), (2, 0)], [True, True, True])


def test_the_second_best_of_two_that_tie_for_the_best_is_the_other_one_but_in_oats_law():
    beliefs = Beliefs(torch.tensor([[[0.5, 0.5, 0.1]]]), torch.arange(3)[None], torch.tensor([[0]]))
    tie = {"beliefs": beliefs, "pairs": torch.tensor([[0, 0]]), "alike": beliefs.alike, "chance": torch.tensor([0])}
    assert repaired("second_best", **tie)[0] == [(0, 1)]
    assert repaired("second_best", **tie, exp_law="oat")[0] == [(0, 0)]


def test_any_other_candidate_is_as_likely_as_the_next_and_the_last_is_no_fallback():
    others = [repaired("random", chance=torch.full((3,), seed))[0] for seed in range(12)]
    assert [pairs[0] for pairs in others] == [(1, 0), (1, 2), (1, 3)] * 4
    assert [pairs[1] for pairs in others] == [(0, 1), (0, 3)] * 6
    assert {pairs[2] for pairs in others} == {(2, 0)}


def test_seeds_may_be_as_large_as_they_come():
    assert repaired("random", chance=torch.full((3,), 2**63 - 1))[0][0] in {(1, 0), (1, 2), (1, 3)}


def test_where_all_texts_are_equal_nothing_helps_and_nothing_breaks():
    alike = torch.zeros(1, 3, dtype=torch.long)
    beliefs = Beliefs(torch.ones(2, 1, 3), alike, torch.tensor([[1, 0]]))
    for on_clash in ("redraw", "keep", "second_best", "random"):
        for believed in (beliefs, None):
            assert repaired(on_clash, believed, torch.tensor([[0, 1]]), alike, torch.tensor([5])) == ([(0, 1)], [True])


def test_without_an_ensemble_the_next_candidate_of_another_text_is_the_redraw():
    alike = torch.tensor([[0, 0, 0, 3, 4], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4]])
    pairs = torch.tensor([[0, 1]] * 3)
    for on_clash in ("redraw", "second_best"):
        fixed, kept = repaired(on_clash, None, pairs, alike, exp_method="passive")
        assert fixed == [(0, 3), (0, 1), (0, 1)] and all(kept)


def test_the_reward_model_has_no_say_in_the_redraw_of_a_passive_duel():
    alike = torch.tensor([[0, 0, 2, 3]])
    beliefs = Beliefs(torch.tensor([[[0.0, 0.0, 0.0, 9.0]]] * 2), alike, torch.tensor([[0, 1]]))
    fixed, _ = repaired("redraw", beliefs, torch.tensor([[0, 1]]), alike, torch.tensor([0]), exp_method="EnnPassive")
    assert fixed == [(0, 2)]
