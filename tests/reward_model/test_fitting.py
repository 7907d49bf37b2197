"""What the ensemble learns: Oat's Adam steps to the last digit, what masks and settings change, and what never may."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oatflow.components.reward_model import checkpoint
from oatflow.components.reward_model.fitting import Ensemble, Fit, fit_ensemble, start_ensemble
from oatflow.components.reward_model.network import compute_rewards
from oatflow.components.reward_model.replay import Replay
from oatflow.components.reward_model.settings import RewardModelSettings

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_exploration.json").read_text())["enn"]
OATS_NAMES = {"hidden_1": "nn1", "hidden_2": "nn2", "out": "nn_out"}
OATS_RUNS = {
    "train_1step": {},
    "train_5steps": {},
    "train_5steps_fixed_reg": {"rm_fixed_reg": True},
    "train_5steps_two_masked": {"rm_mask": "broadcast"},
}
SMALL = RewardModelSettings(num_ensemble=3, rm_hidden_dim=5, rm_batch_size=4, rm_sgd_steps=2)
PARTS = ("weights", "anchor", "first_moment", "second_moment")


def golden_weights(params):
    return {
        f"{ours}.{kind}": torch.tensor(params[f"{oats}.{kind}"], dtype=torch.float64)
        for ours, oats in OATS_NAMES.items()
        for kind in ("weight", "bias")
    }


def golden_start():
    weights = golden_weights(GOLDEN["train_1step"]["start_params"])
    zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    return Ensemble(weights, weights, zeros, zeros, 0)


def golden_replay(run):
    pairs = torch.tensor(run["pair_features_B_2_d(0=chosen)"], dtype=torch.float64)
    return Replay(pairs[:, 0], pairs[:, 1], torch.tensor(run["loss_masks"]) > 0)


def golden_settings(run, **more):
    return RewardModelSettings(
        num_ensemble=3, rm_hidden_dim=3, enn_lambda=run["lambda"], rm_lr=run["lr"], rm_wd=run["weight_decay"],
        rm_sgd_steps=run["sgd_steps"], rm_batch_size=run["train_bs"], **more,
    )  # fmt: skip


def some_duels(count=10, features=4, seed=0, kept=None):
    chosen, rejected = torch.randn(2, count, features, generator=torch.Generator().manual_seed(seed))
    return Replay(chosen, rejected, torch.ones(count, dtype=torch.bool) if kept is None else torch.tensor(kept))


def in_double(thing):
    """Return an ensemble or a buffer in double precision.

    The last bias cancels out of every duel: in single precision its gradient is noise, which Adam makes whole steps of.
    """
    if isinstance(thing, Replay):
        return Replay(thing.chosen.double(), thing.rejected.double(), thing.kept)
    parts = {part: {name: tensor.double() for name, tensor in getattr(thing, part).items()} for part in PARTS}
    return Ensemble(**parts, steps=thing.steps)


def equal(one, other):
    """Whether two ensembles are the same, bit for bit."""
    same = all(
        torch.equal(tensor, getattr(other, part)[name]) for part in PARTS for name, tensor in getattr(one, part).items()
    )
    return same and one.steps == other.steps


def assert_weights(found, expected):
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", OATS_RUNS)
def test_a_fit_ends_with_oats_weights(name):
    run = GOLDEN[name]
    settings = golden_settings(run, **OATS_RUNS[name])
    after, _ = fit_ensemble(golden_start(), golden_replay(run), settings, run["total_num_queries"], seed=0)
    assert_weights(after.weights, golden_weights(run["end_params"]))
    assert after.steps == run["sgd_steps"]


@pytest.mark.parametrize("name", OATS_RUNS)
def test_a_fit_logs_what_oat_logs(name):
    run = GOLDEN[name]
    settings = golden_settings(run, **OATS_RUNS[name])
    _, last = fit_ensemble(golden_start(), golden_replay(run), settings, run["total_num_queries"], seed=0)
    info = run["info_of_last_step"]
    assert last == Fit(
        loss=pytest.approx(info["train/rm/loss_rew"], abs=1e-6),
        penalty=pytest.approx(info["train/rm/loss_reg"], abs=1e-9),
        strength=info["train/rm/lambda"],
        chosen_reward=pytest.approx(info["train/rm/chosen_rewards"], abs=1e-6),
        rejected_reward=pytest.approx(info["train/rm/rejected_rewards"], abs=1e-6),
        steps=run["sgd_steps"],
    )


def test_adams_state_persists_from_fit_to_fit_as_oats_from_step_to_step():
    run = GOLDEN["train_5steps"]
    settings, replay = golden_settings(run).model_copy(update={"rm_sgd_steps": 1}), golden_replay(run)
    ensemble = golden_start()
    for _ in range(5):
        ensemble, _ = fit_ensemble(ensemble, replay, settings, run["total_num_queries"], seed=0)
    assert_weights(ensemble.weights, golden_weights(run["end_params"]))


def test_the_order_of_the_buffer_does_not_matter_to_a_batch_of_all():
    run = GOLDEN["train_5steps"]
    replay = golden_replay(run)
    turned = Replay(replay.chosen.flip(0), replay.rejected.flip(0), replay.kept.flip(0))
    after, _ = fit_ensemble(golden_start(), turned, golden_settings(run), run["total_num_queries"], seed=1)
    assert_weights(after.weights, golden_weights(run["end_params"]))


def test_below_a_full_batch_nothing_is_learned_where_oats_law_is_asked_for():
    assert set(GOLDEN["learn_when_buffer_below_train_bs"].values()) == {0}
    settings = RewardModelSettings(num_ensemble=2, rm_hidden_dim=3, rm_full_batches=True)
    ensemble = start_ensemble(settings, 4, seed=0)
    assert fit_ensemble(ensemble, some_duels(127), settings, 127, seed=0) == (ensemble, None)
    after, last = fit_ensemble(ensemble, some_duels(128), settings, 128, seed=0)
    assert last is not None and not equal(after, ensemble)


def test_below_a_full_batch_all_duels_there_are_make_the_batch():
    run = GOLDEN["train_1step"]
    settings = golden_settings(run).model_copy(update={"rm_batch_size": 128, "enn_lambda": 0.0})
    after, last = fit_ensemble(golden_start(), golden_replay(run), settings, 4, seed=0)
    assert last.loss == pytest.approx(run["info_of_last_step"]["train/rm/loss_rew"], abs=1e-6)
    # The anchor pulls at nothing in the first step, whatever its strength.
    assert_weights(after.weights, golden_weights(run["end_params"]))


@pytest.mark.parametrize("duels", [Replay.empty(4), some_duels(3, kept=[False] * 3)], ids=["none", "all masked"])
@pytest.mark.parametrize("mask", ["row", "broadcast"])
def test_without_a_duel_to_learn_from_the_ensemble_stays(duels, mask):
    settings = SMALL.model_copy(update={"rm_mask": mask})
    ensemble = start_ensemble(settings, 4, seed=0)
    assert fit_ensemble(ensemble, duels, settings, 0, seed=0) == (ensemble, None)


def test_the_ensemble_stays_once_its_budget_of_queries_is_reached():
    settings = SMALL.model_copy(update={"rm_train_budget": 20})
    ensemble = start_ensemble(settings, 4, seed=0)
    assert fit_ensemble(ensemble, some_duels(), settings, 19, seed=0)[1] is not None
    assert fit_ensemble(ensemble, some_duels(), settings, 20, seed=0) == (ensemble, None)


def test_what_a_masked_duel_says_changes_nothing_unless_the_mask_broadcasts():
    kept = [True, True, False, True]
    one = some_duels(4, kept=kept)
    chosen = one.chosen.clone()
    chosen[2] += 10
    other = replace(one, chosen=chosen)
    ensemble = start_ensemble(SMALL, 4, seed=0)
    assert equal(fit_ensemble(ensemble, one, SMALL, 4, 0)[0], fit_ensemble(ensemble, other, SMALL, 4, 0)[0])
    oats = SMALL.model_copy(update={"rm_mask": "broadcast"})
    assert not equal(fit_ensemble(ensemble, one, oats, 4, 0)[0], fit_ensemble(ensemble, other, oats, 4, 0)[0])


def test_a_masked_duel_is_as_one_that_never_was():
    replay = in_double(some_duels(4, kept=[True, True, False, True]))
    rows = replay.kept
    without = Replay(replay.chosen[rows], replay.rejected[rows], replay.kept[rows])
    ensemble = in_double(start_ensemble(SMALL, 4, seed=0))
    after, expected = (fit_ensemble(ensemble, duels, SMALL, 4, seed=0)[0] for duels in (replay, without))
    assert_weights(after.weights, expected.weights)


def test_a_fit_changes_nothing_that_it_is_given():
    replay, start = some_duels(kept=[True, False] * 5), start_ensemble(SMALL, 4, seed=0)
    ensemble, _ = fit_ensemble(start, replay, SMALL, 10, seed=0)
    before = checkpoint.to_bytes(start), checkpoint.to_bytes(ensemble), checkpoint.replay_to_bytes(replay)
    fit_ensemble(ensemble, replay, SMALL, 20, seed=1)
    assert (checkpoint.to_bytes(start), checkpoint.to_bytes(ensemble), checkpoint.replay_to_bytes(replay)) == before


def test_what_was_learned_needs_no_gradient():
    after, _ = fit_ensemble(start_ensemble(SMALL, 4, seed=0), some_duels(), SMALL, 10, seed=0)
    assert not any(tensor.requires_grad for part in PARTS for tensor in getattr(after, part).values())


def test_resumed_from_bytes_a_fit_goes_on_as_if_it_had_never_stopped():
    through = stopped = start_ensemble(SMALL, 4, seed=3)
    for round_ in range(4):
        replay = some_duels(10 * (round_ + 1), seed=round_, kept=[True, True, False, True, False] * 2 * (round_ + 1))
        through, last = fit_ensemble(through, replay, SMALL, 10 * (round_ + 1), seed=round_)
        stored = checkpoint.replay_from_bytes(checkpoint.replay_to_bytes(replay))
        stopped, resumed = fit_ensemble(
            checkpoint.from_bytes(checkpoint.to_bytes(stopped)), stored, SMALL, 10 * (round_ + 1), seed=round_
        )
        assert equal(through, stopped) and last == resumed
    assert through.steps == 8


def test_equal_seeds_learn_equal_bytes_and_others_do_not():
    replay = some_duels()
    one, same, other = (
        checkpoint.to_bytes(fit_ensemble(start_ensemble(SMALL, 4, 0), replay, SMALL, 9, seed)[0]) for seed in (1, 1, 2)
    )
    assert one == same != other
    assert checkpoint.to_bytes(start_ensemble(SMALL, 4, 0)) == checkpoint.to_bytes(start_ensemble(SMALL, 4, 0))
    assert checkpoint.to_bytes(start_ensemble(SMALL, 4, 0)) != checkpoint.to_bytes(start_ensemble(SMALL, 4, 1))


def test_an_ensemble_begins_at_its_anchor_and_the_anchor_stays():
    start = start_ensemble(SMALL, 4, seed=0)
    after, _ = fit_ensemble(start, some_duels(), SMALL, 10, seed=0)
    for name, anchor in start.weights.items():
        assert torch.equal(start.anchor[name], anchor) and torch.equal(after.anchor[name], anchor)
    assert start.steps == 0 and after.steps == SMALL.rm_sgd_steps


def test_a_strong_anchor_keeps_the_members_where_they_began():
    def moved(strength):
        settings = SMALL.model_copy(update={"enn_lambda": strength, "rm_sgd_steps": 200})
        start = start_ensemble(settings, 4, seed=0)
        after, _ = fit_ensemble(start, some_duels(), settings, 4, seed=0)
        return sum((after.weights[name] - start.weights[name]).square().sum().item() for name in start.weights)

    assert moved(1000.0) < moved(1.0) < moved(0.0)


def test_one_member_and_one_duel_are_enough_to_learn_who_won():
    settings = RewardModelSettings(num_ensemble=1, rm_hidden_dim=8, rm_sgd_steps=50, enn_lambda=0.0)
    replay = some_duels(1)
    after, last = fit_ensemble(start_ensemble(settings, 4, seed=0), replay, settings, 1, seed=0)
    chosen, rejected = (compute_rewards(after.weights, side, "relu") for side in (replay.chosen, replay.rejected))
    assert chosen.shape == (1, 1) and chosen > rejected
    assert last.chosen_reward > last.rejected_reward


def test_the_ensemble_learns_a_linear_reward():
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(6, generator=generator)

    def judged(count):
        pairs = torch.randn(count, 2, 6, generator=generator)
        first_wins = (pairs @ direction).diff(dim=1)[:, 0] < 0
        return torch.where(first_wins[:, None, None], pairs, pairs.flip(1))

    settings = RewardModelSettings(num_ensemble=5, rm_hidden_dim=32, rm_sgd_steps=150)
    seen, unseen = judged(400), judged(400)
    replay = Replay(seen[:, 0], seen[:, 1], torch.ones(400, dtype=torch.bool))
    after, _ = fit_ensemble(start_ensemble(settings, 6, seed=0), replay, settings, 400, seed=0)
    believed = compute_rewards(after.weights, unseen, settings.rm_act_fn).mean(0)
    assert (believed[:, 0] > believed[:, 1]).float().mean() > 0.9
