from dataclasses import replace

import numpy as np
import pytest
import torch
from oatflow.components.errors import RefusedInput
from oatflow.components.reward_model.settings import RewardModelSettings
from oatflow.components.simulator.duels import PLAYERS, RANDOM, check_strategy, draw_random_pairs, list_players
from oatflow.components.simulator.held_out import measure_held_out, pair_accuracy, win_rate_of
from oatflow.components.simulator.play import PATIENCE, Rules, labelled, play, win_probability
from oatflow.components.simulator.worlds import Contexts, gaussian_world

SMALL = RewardModelSettings.parse({"num_ensemble": 4, "rm_hidden_dim": 16, "rm_batch_size": 16})
RULES = Rules(queries=72, prompts=16, reward_model=SMALL)


@pytest.fixture(scope="module")
def world():
    return gaussian_world("linear", candidates=5, features=4, seed=0)


class Twins:
    """Two candidates of the same text: every duel is a clash."""

    def prompts(self, round_, count):
        return Contexts(np.ones((count, 2, 3), np.float32), np.ones((count, 2)), np.zeros((count, 2), np.int64))

    def held_out(self):
        return self.prompts(0, 5)


@pytest.mark.parametrize("law", ["paper", "oat"])
@pytest.mark.parametrize("strategy", PLAYERS)
def test_everybody_spends_the_same_budget_and_regrets_no_less_than_nothing(world, strategy, law):
    done = play(world, strategy, replace(RULES, law=law), seed=0)
    assert done.spent == 72
    queries = [moment.queries for moment in done.moments]
    assert queries == sorted(queries) and queries[0] == 0
    for moment in done.moments[1:]:
        assert moment.duel_regret >= 0 and moment.simple_regret >= 0
        assert all(0 <= share <= 1 for share in (moment.clash_rate, moment.win_rate, moment.pair_accuracy))


def test_in_oats_law_a_clash_costs_a_query_and_in_the_papers_it_is_free(world):
    oat, paper = (play(world, "EnnEETS", replace(RULES, law=law), seed=0) for law in ("oat", "paper"))
    assert any(moment.clash_rate for moment in oat.moments[1:])
    assert [moment.queries for moment in oat.moments] == [0, 16, 32, 48, 64, 72]
    for before, moment in zip(paper.moments, paper.moments[1:], strict=False):
        paid = moment.queries - before.queries
        assert paid == min(round(16 * (1 - moment.clash_rate)), 72 - before.queries)


def test_who_only_clashes_pays_nothing_and_ends_all_the_same():
    done = play(Twins(), "EnnEETS", RULES, seed=0)
    assert done.spent == 0 and len(done.moments) == 1 + PATIENCE * 5
    assert all((moment.clash_rate, moment.duel_regret) == (1, 0) for moment in done.moments[1:])
    assert play(Twins(), "EnnEETS", replace(RULES, law="oat"), seed=0).spent == 72


def test_the_same_seed_gives_the_same_play_and_another_seed_another(world):
    one, same, other = (play(world, "EnnBAITS", RULES, seed) for seed in (0, 0, 1))
    assert repr(one) == repr(same)
    assert [moment.win_rate for moment in one.moments] != [moment.win_rate for moment in other.moments]


def test_all_players_begin_alike(world):
    begun = {repr(play(world, strategy, RULES, seed=0).moments[0]) for strategy in (RANDOM, "EnnBAITS", "DRTS")}
    assert len(begun) == 1


def test_the_reward_model_learns_from_the_oracle(world):
    done = play(world, RANDOM, replace(RULES, queries=800, temperature=0.0), seed=0)
    assert done.moments[-1].pair_accuracy > 0.8 > done.moments[0].pair_accuracy + 0.15
    assert done.moments[-1].simple_regret < done.moments[0].simple_regret / 2


def test_the_oracles_probability_by_hand():
    values = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    by_hand = [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(4)), 0.5]
    assert win_probability(values, temperature=0.5) == pytest.approx(by_hand)
    assert win_probability(values, temperature=0.0).tolist() == [1.0, 0.0, 0.5]


def test_the_better_answer_is_chosen_and_a_clash_is_kept_with_its_mask_off():
    features = np.arange(6, dtype=np.float32).reshape(3, 2, 1)
    contexts = Contexts(features, np.array([[0.0, 1.0], [5.0, 4.0], [2.0, 2.0]]), np.array([[0, 1], [0, 1], [0, 1]]))
    pairs, differ = np.array([[0, 1], [0, 1], [1, 1]]), np.array([True, True, False])
    stored = labelled(contexts, pairs, np.array([True, True, True]), differ, temperature=0.0, seed=0)
    assert (stored.chosen[:, 0].tolist(), stored.rejected[:, 0].tolist()) == ([1.0, 2.0, 5.0], [0.0, 3.0, 5.0])
    assert stored.kept.tolist() == [True, True, False]
    asked = np.array([False, True, False])
    assert labelled(contexts, pairs, asked, differ, temperature=0.0, seed=0).chosen.tolist() == [[2.0]]


def test_the_oracle_is_as_noisy_as_its_temperature_says():
    count = 20_000
    contexts = Contexts(
        np.tile(np.array([[[0.0], [1.0]]], np.float32), (count, 1, 1)),
        np.tile([[0.0, 1.0]], (count, 1)),
        np.tile([[0, 1]], (count, 1)),
    )
    every = np.ones(count, bool)
    stored = labelled(contexts, np.tile([[0, 1]], (count, 1)), every, every, temperature=2.0, seed=1)
    second_wins = 1 / (1 + np.exp(-0.5))
    assert float(stored.chosen.mean()) == pytest.approx(second_wins, abs=5 * np.sqrt(0.25 / count))


def test_random_is_uniform_over_pairs_of_different_candidates():
    pairs = draw_random_pairs(np.tile(np.arange(3), (12_000, 1)), seed=0)
    counts = np.bincount(pairs[:, 0] * 3 + pairs[:, 1], minlength=9).reshape(3, 3)
    assert counts.diagonal().sum() == 0
    expected = 12_000 / 6
    assert (np.abs(counts[~np.eye(3, dtype=bool)] - expected) < 5 * np.sqrt(expected)).all()


def test_random_never_picks_two_equal_texts_unless_there_are_no_others():
    pairs = draw_random_pairs(np.tile([0, 0, 2, 0], (500, 1)), seed=0)
    assert ((pairs == 2).sum(axis=1) == 1).all()
    assert (draw_random_pairs(np.zeros((4, 3), int), seed=0) >= 0).all()


def test_a_held_out_win_rate_by_hand():
    # The picked one beats 1 of 2; then ties with one and beats the other; then loses to both.
    rewards = np.array([[2.0, 1.0, 3.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert win_rate_of(rewards, np.array([0, 0, 0])) == pytest.approx((0.5 + 0.75 + 0.0) / 3)


def test_a_pair_accuracy_by_hand():
    # Pairs of unequal reward: (0, 1) wrong, (0, 2) right, (1, 2) right; the second prompt's are all equal.
    rewards = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    assert pair_accuracy(rewards, np.array([[2.0, 3.0, 1.0], [1.0, 2.0, 3.0]])) == pytest.approx(2 / 3)
    assert np.isnan(pair_accuracy(rewards[1:], rewards[1:]))


def test_a_perfect_ensemble_has_no_regret_and_an_inverted_one_all_of_it():
    rewards = np.array([[3.0, 2.0, 1.0], [0.0, 4.0, 1.0]])
    perfect = torch.tensor(rewards).expand(2, -1, -1)
    assert measure_held_out(rewards, perfect) == (0.0, 1.0, 1.0)
    assert measure_held_out(rewards, -perfect) == (3.0, 0.0, 0.0)


def test_a_strategy_is_found_whatever_its_case_and_an_unknown_one_is_refused_by_name():
    assert check_strategy(" enneets") == "EnnEETS"
    with pytest.raises(RefusedInput, match=r"strategies='EnnBAIT': unknown; did you mean 'EnnBAITS'\?"):
        check_strategy("EnnBAIT")


def test_random_always_plays_and_nobody_plays_twice():
    assert list_players(["EnnEETS", "enneets"]) == [RANDOM, "EnnEETS"]
    assert list_players([]) == [RANDOM]
