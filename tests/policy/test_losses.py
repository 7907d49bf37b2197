"""DPO, pair by pair against Oat's numbers, and our mean against Oat's."""

import json
import math
from pathlib import Path

import pytest
import torch
from oatflow.components.policy.losses import LOSSES, dpo, margin, mean_over_kept

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_dpo.json").read_text())["dap_losses"]
NAMES = [f"{side}_logps" for side in ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")]
CASES = [pytest.param(case, id=f"{case['name']}-{'masked' if case['masked'] else 'all'}") for case in GOLDEN["cases"]]


def given():
    return [torch.tensor(GOLDEN["inputs"][name], dtype=torch.float64) for name in NAMES]


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_oats_under_oats_mean_over_all_rows(case):
    chosen, rejected, ref_chosen, ref_rejected = given()
    chosen.requires_grad_()
    rejected.requires_grad_()
    mask = torch.tensor(GOLDEN["inputs"]["loss_masks"], dtype=torch.float64) if case["masked"] else torch.ones(4)
    losses = LOSSES["dpo"](chosen, rejected, ref_chosen, ref_rejected, case["params"]["beta"])
    loss = (losses * mask).mean()
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], abs=1e-6)
    assert chosen.grad.tolist() == pytest.approx(case["grad_policy_chosen"], abs=1e-6)
    assert rejected.grad.tolist() == pytest.approx(case["grad_policy_rejected"], abs=1e-6)
    rewards = [(case["params"]["beta"] * (policy - under)).tolist() for policy, under in
               ((chosen, ref_chosen), (rejected, ref_rejected))]  # fmt: skip
    assert rewards == [pytest.approx(case["chosen_rewards"]), pytest.approx(case["rejected_rewards"])]


def test_our_mean_divides_by_the_kept_pairs_where_oat_divides_by_all():
    # z = (1.5, -3, 1.5, 1.5), beta 0.1: log(1 + e^-0.15) = 0.620957, log(1 + e^0.3) = 0.854355. The third is dropped.
    losses = dpo(*given(), 0.1)
    keep = torch.tensor([True, True, False, True])
    ours = (2 * math.log1p(math.exp(-0.15)) + math.log1p(math.exp(0.3))) / 3
    assert mean_over_kept(losses, keep).item() == pytest.approx(ours, abs=1e-12)
    assert ours == pytest.approx(0.5240673 * 4 / 3, abs=1e-6)


def test_a_pair_that_is_not_kept_has_no_gradient_whatever_its_value():
    losses = torch.tensor([0.3, float("nan"), 0.5], requires_grad=True)
    mean = mean_over_kept(losses, torch.tensor([True, False, True]))
    mean.backward()
    assert mean.item() == pytest.approx(0.4) and losses.grad.tolist() == [0.5, 0.0, 0.5]


def test_parts_of_a_step_add_up_to_its_mean_wherever_it_is_cut():
    losses = dpo(*given(), 0.1)
    whole = mean_over_kept(losses, torch.ones(4, dtype=torch.bool))
    parts = [mean_over_kept(losses[cut], torch.ones(size, dtype=torch.bool), 4) for cut, size in
             ((slice(0, 1), 1), (slice(1, 4), 3))]  # fmt: skip
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-12)


def test_a_step_without_a_kept_pair_has_loss_zero():
    assert mean_over_kept(torch.tensor([1.0]), torch.tensor([False])).item() == 0.0
    assert mean_over_kept(torch.tensor([]), torch.tensor([], dtype=torch.bool)).item() == 0.0


def test_swapping_chosen_and_rejected_turns_the_margin_round():
    chosen, rejected, ref_chosen, ref_rejected = given()
    there = margin(chosen, rejected, ref_chosen, ref_rejected)
    assert there.tolist() == [1.5, -3.0, 1.5, 1.5]
    assert margin(rejected, chosen, ref_rejected, ref_chosen).tolist() == [-1.5, 3.0, -1.5, -1.5]


def test_shapes_that_would_broadcast_are_refused():
    column, row = torch.zeros(4, 1), torch.zeros(4)
    with pytest.raises(ValueError, match="one shape"):
        margin(row, column, row, row)
    with pytest.raises(ValueError, match="one shape"):
        mean_over_kept(row, column.bool())
