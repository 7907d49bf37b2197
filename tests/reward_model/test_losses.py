"""What the ensemble minimises, against Oat's numbers, and by hand where ours differ from Oat's."""

import json
import math
from pathlib import Path

import pytest
import torch
from oatflow.components.reward_model.losses import anchor_penalty, anchor_strength, duel_loss
from oatflow.components.reward_model.settings import RewardModelSettings

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_exploration.json").read_text())["enn"]
PROBE = GOLDEN["mask_broadcast_probe"]
OATS_NAMES = {"hidden_1": "nn1", "hidden_2": "nn2", "out": "nn_out"}


def tensor(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def probe():
    chosen, rejected = tensor(PROBE["chosen_E_B_1"])[..., 0], tensor(PROBE["rejected_E_B_1"])[..., 0]
    return chosen.requires_grad_(), rejected.requires_grad_(), torch.tensor(PROBE["mask_B"]) > 0


def log1pexp(x):
    return math.log1p(math.exp(x))


def test_the_broadcast_mask_is_oats():
    chosen, rejected, kept = probe()
    loss = duel_loss(chosen, rejected, kept, "broadcast")
    assert loss.item() == pytest.approx(PROBE["oat_value(mask[None] as called in learn())"], abs=1e-6)


def test_the_mask_by_row_averages_over_the_kept_duels():
    chosen, rejected, kept = probe()
    loss = duel_loss(chosen, rejected, kept, "row")
    # The golden value's denominator counts all four duels; two of them are kept.
    assert loss.item() * 2 / 4 == pytest.approx(PROBE["per_sample_masked_mean"], abs=1e-6)
    # Members 1 and 2, duels 1 and 3: margins 2, 0 and 0.5, -1.
    by_hand = (log1pexp(-2) + log1pexp(0) + log1pexp(-0.5) + log1pexp(1)) / 4
    assert loss.item() == pytest.approx(by_hand, abs=1e-12)


def test_a_masked_row_has_no_gradient_and_a_kept_one_its_own():
    chosen, rejected, kept = probe()
    duel_loss(chosen, rejected, kept, "row").backward()
    # -sigmoid(-margin) / (2 members x 2 kept duels).
    assert chosen.grad[:, [1, 3]].tolist() == [[0, 0], [0, 0]] == rejected.grad[:, [1, 3]].tolist()
    expected = [[-1 / (1 + math.exp(margin)) / 4 for margin in row] for row in [(2, 0), (0.5, -1)]]
    torch.testing.assert_close(chosen.grad[:, [0, 2]], tensor(expected))
    torch.testing.assert_close(rejected.grad, -chosen.grad)


def test_a_row_that_oat_masks_has_a_gradient_after_all():
    chosen, rejected, kept = probe()
    duel_loss(chosen, rejected, kept, "broadcast").backward()
    assert (chosen.grad != 0).all()


@pytest.mark.parametrize("mask", ["row", "broadcast"])
def test_where_no_duel_is_kept_there_is_no_loss_and_no_gradient(mask):
    chosen, rejected, _ = probe()
    loss = duel_loss(chosen, rejected, torch.zeros(4, dtype=torch.bool), mask)
    loss.backward()
    assert loss.item() == 0 and not chosen.grad.any()


@pytest.mark.parametrize("mask", ["row", "broadcast"])
def test_where_every_duel_is_kept_both_masks_agree(mask):
    chosen, rejected, _ = probe()
    loss = duel_loss(chosen, rejected, torch.ones(4, dtype=torch.bool), mask)
    assert loss.item() == pytest.approx(sum(log1pexp(m) for m in (-2, 2, 0, -4, -0.5, 2, 1, -2)) / 8)


def test_one_member_and_one_duel_are_enough():
    loss = duel_loss(tensor([[1.0]]), tensor([[0.0]]), torch.tensor([True]), "row")
    assert loss.item() == pytest.approx(log1pexp(-1))


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2,)])
def test_a_mask_that_would_broadcast_is_refused(shape):
    chosen, rejected, _ = probe()
    with pytest.raises(ValueError, match=r"must be \(E, B\), \(E, B\) and \(B,\)"):
        duel_loss(chosen, rejected, torch.ones(shape, dtype=torch.bool), "row")


@pytest.mark.parametrize("activation", ["relu", "swish"])
def test_the_anchors_penalty_is_oats(activation):
    golden = GOLDEN["forward"][activation]
    weights, anchor, start = {}, {}, 0
    for name, numbers in golden["params"].items():
        weights[name] = tensor(numbers)
        end = start + weights[name].numel()
        anchor[name] = tensor(golden["init_params_flat"][start:end]).reshape(weights[name].shape)
        start = end
    assert start == len(golden["init_params_flat"])
    assert anchor_penalty(weights, anchor).item() == pytest.approx(golden["regularization"], abs=1e-9)


def test_the_anchors_penalty_is_a_mean_over_all_parameters_and_not_of_layers():
    weights = {"big": tensor([1.0, 1.0, 1.0]), "small": tensor([3.0])}
    anchor = {"big": tensor([0.0, 1.0, 2.0]), "small": tensor([1.0])}
    assert anchor_penalty(weights, anchor).item() == (1 + 0 + 1 + 4) / 4


@pytest.mark.parametrize("case", ["train_5steps", "train_5steps_fixed_reg"])
def test_the_anchors_strength_is_oats(case):
    golden = GOLDEN[case]
    settings = RewardModelSettings(
        enn_lambda=golden["lambda"], rm_batch_size=golden["train_bs"], rm_fixed_reg=case.endswith("fixed_reg")
    )
    strength = anchor_strength(settings, golden["total_num_queries"])
    assert strength == golden["info_of_last_step"]["train/rm/lambda"]


def test_the_anchor_fades_with_queries_unless_it_is_fixed():
    fading, fixed = RewardModelSettings(), RewardModelSettings(rm_fixed_reg=True)
    assert [anchor_strength(fading, queries) for queries in (128, 256, 1280)] == [0.5, 0.25, 0.05]
    assert [anchor_strength(fixed, queries) for queries in (128, 1280)] == [0.5, 0.5]
    assert math.isfinite(anchor_strength(fading, 0))
