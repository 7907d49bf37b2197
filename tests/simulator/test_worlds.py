import numpy as np
import pytest
from oatflow.components.simulator.pool import Pool
from oatflow.components.simulator.worlds import GaussianWorld, LinearReward, PoolWorld, find_alike, gaussian_world


def pool(prompts=20, candidates=4, features=3):
    source = np.random.default_rng(0)
    rewards = np.arange(prompts * candidates, dtype=np.float32).reshape(prompts, candidates)
    return Pool(source.standard_normal((prompts, candidates, features)).astype(np.float32), rewards, "made up")


def prompts_of(contexts):
    """Which prompts of the pool these are: their first candidate's reward tells."""
    return (contexts.rewards[:, 0] / contexts.rewards.shape[1]).astype(int).tolist()


def test_a_linear_reward_by_hand():
    world = GaussianWorld(LinearReward(np.array([1.0, -2.0])), candidates=3, features=2, seed=1, held_out_seed=2)
    contexts = world.prompts(0, 5)
    assert contexts.features.shape == (5, 3, 2) and contexts.rewards.shape == (5, 3)
    assert contexts.rewards == pytest.approx(contexts.features[..., 0] - 2 * contexts.features[..., 1], abs=1e-5)


@pytest.mark.parametrize("kind", ["linear", "neural"])
def test_rewards_of_gaussian_candidates_spread_as_in_oats_toy(kind):
    rewards = gaussian_world(kind, candidates=10, features=16, seed=3).prompts(0, 2000).rewards
    assert rewards.std() == pytest.approx(1.5, abs=0.06)


def test_no_line_fits_a_neural_reward():
    contexts = gaussian_world("neural", candidates=10, features=8, seed=0).prompts(0, 500)
    features, rewards = contexts.features.reshape(-1, 8), contexts.rewards.reshape(-1)
    _, left, _, _ = np.linalg.lstsq(features, rewards - rewards.mean(), rcond=None)
    assert left[0] / len(rewards) > 0.1 * rewards.var()


def test_every_round_has_fresh_candidates_and_the_held_out_ones_stay():
    world = gaussian_world("linear", candidates=4, features=3, seed=0)
    first, again, second = world.prompts(0, 8), world.prompts(0, 8), world.prompts(1, 8)
    assert (first.features == again.features).all() and (first.features != second.features).any()
    assert (world.held_out().features == world.held_out().features).all()


def test_another_seed_is_another_world():
    one, other = (gaussian_world("linear", candidates=4, features=3, seed=seed) for seed in (0, 1))
    assert (one.reward.weights != other.reward.weights).any()
    assert (one.prompts(0, 8).features != other.prompts(0, 8).features).any()


def test_a_fifth_of_a_pool_is_held_out_and_never_played_on():
    world = PoolWorld(pool(), seed=0)
    held_out = set(prompts_of(world.held_out()))
    played = {prompt for round_ in range(10) for prompt in prompts_of(world.prompts(round_, 7))}
    assert len(held_out) == 4 and len(played) == 16 and not held_out & played


def test_a_pools_prompt_comes_again_only_after_all_the_others():
    world = PoolWorld(pool(), seed=0)
    # 16 prompts to play on, 12 a round: 4 rounds are 3 epochs.
    row = [prompt for round_ in range(4) for prompt in prompts_of(world.prompts(round_, 12))]
    epochs = [row[:16], row[16:32], row[32:]]
    assert all(len(set(epoch)) == 16 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_round_may_be_larger_than_the_pool():
    assert len(PoolWorld(pool(), seed=0).prompts(0, 40)) == 40


def test_candidates_with_the_same_features_are_alike():
    features = np.array([[2.0, 1.0], [0.0, 1.0], [2.0, 1.0], [0.0, 1.0], [9.0, 9.0]], dtype=np.float32)
    assert find_alike(features).tolist() == [0, 1, 0, 1, 4]
