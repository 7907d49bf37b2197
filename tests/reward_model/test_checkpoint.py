"""What is saved comes back, bit for bit, and equal things are equal bytes."""

import torch
from oatflow.components.reward_model import checkpoint
from oatflow.components.reward_model.fitting import fit_ensemble, start_ensemble
from oatflow.components.reward_model.replay import Replay
from oatflow.components.reward_model.settings import RewardModelSettings

SETTINGS = RewardModelSettings(num_ensemble=2, rm_hidden_dim=3)


def duels(count=5):
    numbers = torch.randn(2, count, 4, generator=torch.Generator().manual_seed(0))
    return Replay(numbers[0], numbers[1], torch.arange(count) % 2 == 0)


def learned():
    ensemble, _ = fit_ensemble(start_ensemble(SETTINGS, 4, seed=0), duels(), SETTINGS, 5, seed=0)
    return ensemble


def test_an_ensemble_comes_back_whole():
    ensemble = learned()
    back = checkpoint.from_bytes(checkpoint.to_bytes(ensemble))
    for part in ("weights", "anchor", "first_moment", "second_moment"):
        ours, theirs = getattr(ensemble, part), getattr(back, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    assert back.steps == ensemble.steps == 5


def test_an_ensemble_that_has_learned_nothing_comes_back():
    assert checkpoint.from_bytes(checkpoint.to_bytes(start_ensemble(SETTINGS, 4, seed=0))).steps == 0


def test_a_buffer_comes_back_in_its_order_with_its_mask():
    for replay in (duels(), duels(1), Replay.empty(4)):
        back = checkpoint.replay_from_bytes(checkpoint.replay_to_bytes(replay))
        assert torch.equal(back.chosen, replay.chosen) and torch.equal(back.rejected, replay.rejected)
        assert torch.equal(back.kept, replay.kept) and back.kept.dtype == torch.bool


def test_features_come_back_also_where_they_are_a_view_of_more():
    table = torch.arange(12.0).reshape(3, 4)
    for features in (table, table[1:, ::2], table.T, table[:0]):
        assert torch.equal(checkpoint.features_from_bytes(checkpoint.features_to_bytes(features)), features)


def test_two_sides_that_are_one_tensor_can_be_saved():
    side = torch.ones(2, 4)
    back = checkpoint.replay_from_bytes(
        checkpoint.replay_to_bytes(Replay(side, side, torch.zeros(2, dtype=torch.bool)))
    )
    assert torch.equal(back.chosen, side) and torch.equal(back.rejected, side)


def test_equal_things_are_equal_bytes_also_after_a_way_through_bytes():
    ensemble, replay = learned(), duels()
    assert checkpoint.to_bytes(ensemble) == checkpoint.to_bytes(learned())
    assert checkpoint.to_bytes(checkpoint.from_bytes(checkpoint.to_bytes(ensemble))) == checkpoint.to_bytes(ensemble)
    data = checkpoint.replay_to_bytes(replay)
    assert checkpoint.replay_to_bytes(checkpoint.replay_from_bytes(data)) == data == checkpoint.replay_to_bytes(duels())
    table = replay.chosen
    assert checkpoint.features_to_bytes(table[1:]) == checkpoint.features_to_bytes(table[1:].clone())
