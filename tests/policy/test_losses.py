"""Every direct loss and its add-ons against Oat's numbers, and by hand where ours differ from Oat's."""

import json
import math
from pathlib import Path

import pytest
import torch
from oatflow.components.policy import losses
from oatflow.components.policy.losses import (
    dpo_of_margins,
    log_ratio_margin,
    mean_over_all,
    mean_over_kept,
    reference_free_margin,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_preference.json").read_text())["dap_losses"]
NAMES = [f"{side}_logps" for side in ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")]
LENGTHS = GOLDEN["inputs"]["completion_lengths_chosen_then_rejected"]
CASES = [pytest.param(case, id=f"{case['name']}-{'masked' if case['masked'] else 'all'}") for case in GOLDEN["cases"]]
ALL = torch.ones(4, dtype=torch.bool)


def given():
    return [torch.tensor(GOLDEN["inputs"][name], dtype=torch.float64) for name in NAMES]


def lengths():
    return torch.tensor(LENGTHS, dtype=torch.float64).chunk(2)


def dpo_with_add_ons(
    chosen, rejected, ref_chosen, ref_rejected, beta, label_smoothing=0.0, len_reg_alpha=0.0, dpo_positive_lambda=0.0,
    sft_weight=0.0,
):  # fmt: skip
    margins = log_ratio_margin(chosen, rejected, ref_chosen, ref_rejected)
    margins = losses.add_length_term(margins, *lengths(), len_reg_alpha / beta)
    margins = losses.add_positive_term(margins, chosen, ref_chosen, dpo_positive_lambda)
    return dpo_of_margins(margins, beta, label_smoothing) + sft_weight * losses.sft_per_token(chosen, lengths()[0])


def ipo(*logprobs, beta, **ignored):
    return losses.ipo_of_margins(log_ratio_margin(*logprobs), beta)


def slic(*logprobs, beta):
    return losses.slic_of_margins(log_ratio_margin(*logprobs), beta)


def simpo(chosen, rejected, *reference, loss_type="sigmoid", **params):
    margins = reference_free_margin(chosen, rejected)
    if loss_type == "hinge":
        return losses.slic_of_margins(margins - params["gamma_beta_ratio"], params["beta"])
    return losses.simpo_of_margins(margins, **params)


COMPOSED = {"DPO": dpo_with_add_ons, "LR_DPO": dpo_with_add_ons, "IPO": ipo, "SLiC": slic, "SimPO": simpo}


def test_there_are_21_sets_of_parameters_each_with_and_without_a_masked_pair():
    assert len(CASES) == 42 and len({case["name"] for case in GOLDEN["cases"]}) == 21


@pytest.mark.parametrize("case", CASES)
def test_losses_rewards_and_gradients_are_oats_under_oats_mean_over_all_pairs(case):
    chosen, rejected, ref_chosen, ref_rejected = given()
    chosen.requires_grad_()
    rejected.requires_grad_()
    keep = torch.tensor(GOLDEN["inputs"]["loss_masks"]) > 0 if case["masked"] else ALL
    values = COMPOSED[case["dap_algo"]](chosen, rejected, ref_chosen, ref_rejected, **case["params"])
    loss = mean_over_all(values, keep)
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], abs=1e-6)
    assert chosen.grad.tolist() == pytest.approx(case["grad_policy_chosen"], abs=1e-6)
    assert rejected.grad.tolist() == pytest.approx(case["grad_policy_rejected"], abs=1e-6)
    margins = reference_free_margin(chosen, rejected)
    if case["dap_algo"] != "SimPO":
        margins = log_ratio_margin(chosen, rejected, ref_chosen, ref_rejected)
    reward_margins = torch.tensor(case["chosen_rewards"]) - torch.tensor(case["rejected_rewards"])
    assert (case["params"]["beta"] * margins).tolist() == pytest.approx(reward_margins.tolist(), abs=1e-6)


def bnf_given():
    """Return tokens as Oat has them, (2B, T), flat and without the masked ones, and how each row adds up."""
    inputs = GOLDEN["bnf"]["inputs"]
    mask = torch.tensor(inputs["token_masks"])
    names = ("policy_logps", "ref_logps", "policy_entropy")
    return mask, *(torch.tensor(inputs[name], dtype=torch.float64) for name in names)


def bnf_by_row(mask, policy, reference, rest):
    scores = torch.zeros_like(policy).masked_scatter(mask, losses.bnf_scores(policy[mask], reference[mask], rest[mask]))
    return scores.sum(1).chunk(2)


def test_bnf_and_its_gradient_are_oats():
    mask, policy, reference, rest = bnf_given()
    policy.requires_grad_()
    chosen, rejected = bnf_by_row(mask, policy, reference, rest)
    values = -reference_free_margin(chosen, rejected) / mask.sum(1).min()
    loss = mean_over_all(values, torch.tensor([True, True]))
    loss.backward()
    on_record = GOLDEN["bnf"]["results"]["all_kept"]
    assert loss.item() == pytest.approx(on_record["loss"], abs=1e-6)
    assert torch.allclose(policy.grad, torch.tensor(on_record["grad_policy_logps"], dtype=torch.float64), atol=1e-6)


def test_a_masked_pair_has_no_part_in_our_bnf_where_oats_mask_broadcasts_to_mean_loss_times_mean_mask():
    mask, policy, reference, rest = bnf_given()
    policy.requires_grad_()
    chosen, rejected = bnf_by_row(mask, policy, reference, rest)
    values = -reference_free_margin(chosen, rejected) / mask.sum(1).min()
    keep = torch.tensor([True, False])
    on_record = GOLDEN["bnf"]["results"]["second_masked"]
    assert (values.mean() * keep.double().mean()).item() == pytest.approx(on_record["loss"], abs=1e-6)
    (gradient,) = torch.autograd.grad(mean_over_all(values, keep), policy)
    # The rows: chosen and rejected of the first pair are 0 and 2. Oat trains on the rows of the second as well.
    assert gradient[[1, 3]].abs().max() == 0 and gradient[[0, 2]].abs().max() > 0
    assert torch.tensor(on_record["grad_policy_logps"])[[1, 3]].abs().max() > 0
    assert mean_over_all(values, keep).item() == pytest.approx(values[0].item() / 2, abs=1e-12)
    assert mean_over_kept(values, keep).item() == pytest.approx(values[0].item(), abs=1e-12)


def test_bnf_scores_by_hand():
    # p = 0.5 under both: target 1, nothing is left for the others but the epsilon. p = 0.2, q = 0.8: target 1/4, and
    # 3/4 is spread over the others, who have 0.8 in all.
    policy = torch.tensor([0.5, 0.2], dtype=torch.float64).log()
    reference = torch.tensor([0.5, 0.8], dtype=torch.float64).log()
    rest = torch.tensor([-0.3, -1.1], dtype=torch.float64)
    found = losses.bnf_scores(policy, reference, rest)
    assert found.tolist() == pytest.approx([math.log(0.5), 0.25 * math.log(0.2) - 1.1 * 0.75 / 0.8], abs=1e-5)


def test_the_other_tokens_of_bnf_pull_on_the_sampled_one_alone():
    # Three tokens with p = (0.5, 0.3, 0.2); the first was sampled.
    logits = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log().requires_grad_()
    logprobs = logits.log_softmax(1)
    entropy = (logprobs.exp() * logprobs).sum(1).detach()
    rest = losses.other_tokens(entropy, logprobs[:, 0])
    assert rest.item() == pytest.approx(0.3 * math.log(0.3) + 0.2 * math.log(0.2), abs=1e-12)
    (gradient,) = torch.autograd.grad(rest.sum(), logits)
    # With the p's held fixed: the sum over v of p_v (1[v = k] - p_k) without the first v.
    held = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.3, 0.2], dtype=torch.float64) - 0.5 * held
    assert torch.allclose(gradient[0], expected, atol=1e-12)


def test_our_mean_divides_by_the_kept_pairs_where_oat_divides_by_all():
    # z = (1.5, -3, 1.5, 1.5), beta 0.1: log(1 + e^-0.15) = 0.620957, log(1 + e^0.3) = 0.854355. The third is dropped.
    values = dpo_of_margins(log_ratio_margin(*given()), 0.1)
    keep = torch.tensor([True, True, False, True])
    ours = (2 * math.log1p(math.exp(-0.15)) + math.log1p(math.exp(0.3))) / 3
    assert mean_over_kept(values, keep).item() == pytest.approx(ours, abs=1e-12)
    assert mean_over_all(values, keep).item() == pytest.approx(ours * 3 / 4, abs=1e-12)
    assert ours == pytest.approx(0.5240673 * 4 / 3, abs=1e-6)


def test_ipo_by_hand():
    # 1 / (2 beta) = 2: the margin's distance from 2, squared.
    assert losses.ipo_of_margins(torch.tensor([2.0, 0.0, 5.0, -1.0]), 0.25).tolist() == [0.0, 4.0, 9.0, 9.0]


def test_slic_by_hand():
    assert losses.slic_of_margins(torch.tensor([0.0, 2.0, 4.0, 6.0, -4.0]), 0.25).tolist() == [1.0, 0.5, 0.0, 0.0, 2.0]


def test_simpo_by_hand():
    # Beta 2, gamma 1: the margin of 0.5 is just the one demanded.
    values = losses.simpo_of_margins(torch.tensor([0.5, 1.5], dtype=torch.float64), 2.0, 0.5)
    assert values.tolist() == pytest.approx([math.log(2), math.log1p(math.exp(-2))], abs=1e-12)


def test_label_smoothing_weighs_both_labels():
    values = dpo_of_margins(torch.tensor([3.0], dtype=torch.float64), 1.0, 0.25)
    expected = 0.75 * math.log1p(math.exp(-3)) + 0.25 * math.log1p(math.exp(3))
    assert values.item() == pytest.approx(expected, abs=1e-12)


def test_add_ons_by_hand():
    margins = torch.tensor([1.0, 1.0])
    longer, shorter = torch.tensor([5.0, 2.0]), torch.tensor([3.0, 6.0])
    assert losses.add_length_term(margins, longer, shorter, 0.5).tolist() == [2.0, -1.0]
    # The first chosen completion became less likely by 2, the second one likelier.
    positive = losses.add_positive_term(margins, torch.tensor([-4.0, -1.0]), torch.tensor([-2.0, -2.0]), 5.0)
    assert positive.tolist() == [-9.0, 1.0]
    assert losses.sft_per_token(torch.tensor([-6.0, -1.0]), torch.tensor([3.0, 1.0])).tolist() == [2.0, 1.0]
    assert losses.add_optimism(margins, torch.tensor([-10.0, -20.0]), 0.1).tolist() == [0.0, -1.0]


@pytest.mark.parametrize("mean", [mean_over_kept, mean_over_all])
def test_a_pair_that_is_not_kept_has_no_gradient_whatever_its_value(mean):
    values = torch.tensor([0.3, float("nan"), 0.5], requires_grad=True)
    found = mean(values, torch.tensor([True, False, True]))
    found.backward()
    counted = 2 if mean is mean_over_kept else 3
    assert found.item() == pytest.approx(0.8 / counted)
    assert values.grad.tolist() == pytest.approx([1 / counted, 0.0, 1 / counted])


@pytest.mark.parametrize("mean", [mean_over_kept, mean_over_all])
def test_parts_of_a_step_add_up_to_its_mean_wherever_it_is_cut(mean):
    values = dpo_of_margins(log_ratio_margin(*given()), 0.1)
    parts = [mean(values[cut], ALL[cut], 4) for cut in (slice(0, 1), slice(1, 4), slice(4, 4))]
    assert sum(parts).item() == pytest.approx(mean(values, ALL).item(), abs=1e-12)


@pytest.mark.parametrize("mean", [mean_over_kept, mean_over_all])
def test_a_step_without_a_kept_pair_has_loss_zero(mean):
    assert mean(torch.tensor([1.0]), torch.tensor([False])).item() == 0.0
    assert mean(torch.tensor([]), torch.tensor([], dtype=torch.bool)).item() == 0.0


def test_swapping_chosen_and_rejected_turns_the_margin_round():
    chosen, rejected, ref_chosen, ref_rejected = given()
    assert log_ratio_margin(chosen, rejected, ref_chosen, ref_rejected).tolist() == [1.5, -3.0, 1.5, 1.5]
    assert log_ratio_margin(rejected, chosen, ref_rejected, ref_chosen).tolist() == [-1.5, 3.0, -1.5, -1.5]


def test_shapes_that_would_broadcast_are_refused():
    column, row = torch.zeros(4, 1), torch.zeros(4)
    with pytest.raises(ValueError, match="one shape"):
        log_ratio_margin(row, column, row, row)
    with pytest.raises(ValueError, match="one shape"):
        log_ratio_margin(row, row, column, column)
    with pytest.raises(ValueError, match="one shape"):
        log_ratio_margin(row, row, row[:1], row[:1])
    with pytest.raises(ValueError, match="one shape"):
        losses.add_positive_term(row, row, column, 1.0)
    with pytest.raises(ValueError, match="one shape"):
        losses.add_length_term(row, row, column, 1.0)
    with pytest.raises(ValueError, match="one shape"):
        losses.sft_per_token(row, column)
    with pytest.raises(ValueError, match="one shape"):
        losses.add_optimism(row, column, 1.0)
    with pytest.raises(ValueError, match="one shape"):
        losses.bnf_scores(row, column, row)
    with pytest.raises(ValueError, match="one shape"):
        mean_over_kept(row, column.bool())
    with pytest.raises(ValueError, match="one shape"):
        mean_over_all(row, column.bool())
