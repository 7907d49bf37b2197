"""What the settings make of completions: Oat's losses and whole learning steps, and by hand where ours differ."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from oatflow.components.policy import losses
from oatflow.components.policy.objective import Completions, compute_losses
from oatflow.components.policy.registry import LOSSES
from oatflow.components.policy.rows import lay_out
from oatflow.components.policy.scoring import score_completions, sum_logprobs
from oatflow.components.policy.settings import PolicySettings
from oatflow.components.policy.tokens import Pair

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_preference.json").read_text())
BIGRAM = GOLDEN["bigram_learning_steps"]
KEEP = torch.tensor(BIGRAM["fixture"]["loss_masks_keep"])
LAYOUTS = pytest.mark.parametrize("one_row", [True, False], ids=["one-row", "two-rows"])

# What Oat computes, where our default is another by decision.
AS_OAT = {"IPO": {"ipo_per_token": True}, "BNF": {"bnf_length": "batch"}}


def settings_of(algo, params):
    """Return settings in Oat's spelling; what the loss ignores in Oat is refused by us, and left out."""
    reads = LOSSES[algo.lower()].reads
    return PolicySettings(dap_algo=algo, **AS_OAT.get(algo, {}), **{k: v for k, v in params.items() if k in reads})


def test_every_loss_that_can_be_named_can_be_computed():
    assert all(callable(loss.load_function()) for loss in LOSSES.values())


# Oat's losses, from log-probabilities of completions.

CASES = [
    pytest.param(case, id=f"{case['name']}-{'masked' if case['masked'] else 'all'}")
    for case in GOLDEN["dap_losses"]["cases"]
    if "loss_type" not in case["params"]  # No setting of Oat reaches SimPO's hinge, and none of ours.
]


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_oats_on_given_log_probabilities(case):
    given = GOLDEN["dap_losses"]["inputs"]
    of = {name: torch.tensor(given[f"{name}_logps"], dtype=torch.float64).requires_grad_() for name in
          ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")}  # fmt: skip
    # Tokens of one completion are all alike, so that they add up, or come down on average, to what is given.
    counts = torch.tensor(given["completion_lengths_chosen_then_rejected"])
    shares = torch.ones(8) if case["dap_algo"] in ("LR_DPO", "IPO", "SimPO") else counts
    completion = torch.arange(8).repeat_interleave(counts)
    policy, reference = (torch.cat([of[f"{model}_chosen"], of[f"{model}_rejected"]]) for model in
                         ("policy", "reference"))  # fmt: skip
    tokens = Completions(completion, (policy / shares)[completion], (reference / shares)[completion].detach())
    computed = compute_losses(tokens, settings_of(case["dap_algo"], case["params"]))
    keep = torch.tensor(given["loss_masks"]) > 0 if case["masked"] else torch.ones(4, dtype=torch.bool)
    loss = losses.mean_over_all(computed.losses, keep)
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], abs=1e-6)
    assert of["policy_chosen"].grad.tolist() == pytest.approx(case["grad_policy_chosen"], abs=1e-6)
    assert of["policy_rejected"].grad.tolist() == pytest.approx(case["grad_policy_rejected"], abs=1e-6)
    expected = torch.tensor(case["chosen_rewards"]) - torch.tensor(case["rejected_rewards"])
    assert computed.reward_margins.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


# Oat's learning steps on a model whose next token depends on the last one alone.


class Bigram(torch.nn.Module):
    """Its output layer is the whole of it: the logits after token t are row t of a table."""

    def __init__(self, table):
        super().__init__()
        self.head = torch.nn.Linear(len(table), len(table), bias=False, dtype=torch.float64)
        self.head.weight = torch.nn.Parameter(torch.tensor(table, dtype=torch.float64).T.contiguous())

    @property
    def table_gradient(self):
        return self.head.weight.grad.T

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask, position_ids, use_cache):
        states = torch.nn.functional.one_hot(input_ids, self.head.in_features).double()
        return SimpleNamespace(logits=self.head(states))


def bigram_rows(one_row):
    fixture = BIGRAM["fixture"]
    texts = zip(fixture["prompts"], fixture["chosen"], fixture["rejected"], strict=True)
    pairs = [Pair(str(number), *map(tuple, text)) for number, text in enumerate(texts)]
    return lay_out(pairs, fixture["pad_id"], one_row)


def bigram_completions(policy, one_row):
    rows = bigram_rows(one_row)
    with torch.no_grad():
        reference = score_completions(Bigram(BIGRAM["fixture"]["ref_table"]), rows).logprobs
    return score_completions(policy, rows, reference, with_entropy=True)


@pytest.fixture
def policy():
    return Bigram(BIGRAM["fixture"]["policy_table"])


@LAYOUTS
@pytest.mark.parametrize("algo", BIGRAM["sequence_logps"])
def test_log_probabilities_of_completions_are_oats(policy, one_row, algo):
    on_record = BIGRAM["sequence_logps"][algo]
    tokens = bigram_completions(policy, one_row).tokens
    assert tokens.tolist() == on_record["token_counts"]
    found = sum_logprobs(policy, bigram_rows(one_row))
    if algo in ("IPO", "SimPO", "LR_DPO"):
        found = found / tokens
    assert found.tolist() == pytest.approx([*on_record["chosen"], *on_record["rejected"]], abs=1e-6)


def same_table(found, on_record):
    return torch.allclose(found, torch.tensor(on_record, dtype=torch.float64), rtol=0, atol=1e-6)


@LAYOUTS
@pytest.mark.parametrize("step", BIGRAM["steps"], ids=lambda step: f"{step['algo']}-{len(step['params'])}")
def test_a_learning_step_moves_the_whole_table_as_oats(policy, one_row, step):
    computed = compute_losses(bigram_completions(policy, one_row), settings_of(step["algo"], step["params"]))
    if step["algo"] == "BNF":
        # Oat's mask broadcasts, so that the masked pair is learned from as well.
        loss = computed.losses.mean() * KEEP.double().mean()
    else:
        loss = losses.mean_over_all(computed.losses, KEEP)
    loss.backward()
    assert loss.item() == pytest.approx(step["loss"], abs=1e-6)
    assert same_table(policy.table_gradient, step["grad_table"])
    chosen, rejected = (torch.tensor(step[f"{side}_reward"]).flatten() for side in ("chosen", "rejected"))
    # For SimPO Oat's rewards are b * lw; for BNF sums of log-ratios.
    assert computed.reward_margins.tolist() == pytest.approx((chosen - rejected).tolist(), abs=1e-6)


@LAYOUTS
@pytest.mark.parametrize("case", GOLDEN["xpo"]["v0.0.5"]["results"], ids=lambda case: str(case["xpo_alpha"]))
def test_the_optimism_of_xpo_is_that_of_its_first_version_in_oat(policy, one_row, case):
    given = bigram_completions(policy, one_row)
    settings = settings_of("DPO", {"beta": case["beta"], "xpo_alpha": case["xpo_alpha"]})
    # The second answer was the reference's: it is the chosen one where the second was chosen.
    of_reference = torch.tensor(BIGRAM["fixture"]["chosen_ids"]) == 1
    optimistic, plain = compute_losses(given, settings, of_reference), compute_losses(given, settings)
    loss = losses.mean_over_all(optimistic.losses, KEEP)
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], abs=1e-6)
    optimism = losses.mean_over_all(optimistic.losses - plain.losses, KEEP).item()
    assert optimism == pytest.approx(case["xpo_alpha"] * case["optimism_loss"], abs=1e-9)
    assert same_table(policy.table_gradient, case["grad_table"])
    assert optimistic.reward_margins.tolist() == plain.reward_margins.tolist()


# Where our default is not Oat's: two pairs by hand, of (chosen, rejected) tokens (2, 1) and (3, 4).

COMPLETION = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 3, 3])
POLICY = torch.tensor([-1.0, -3.0, -1.0, -1.0, -1.0, -2.0, -2.0, -2.0, -2.0, -2.0], dtype=torch.float64)
REFERENCE = torch.tensor([-2.0, -3.0, -2.0, -2.0, -2.0, -1.0, -1.0, -1.0, -1.0, -1.0], dtype=torch.float64)


def losses_by_hand(minus_entropy=None, **settings):
    return compute_losses(Completions(COMPLETION, POLICY, REFERENCE, minus_entropy), PolicySettings(**settings))


def test_xpo_makes_what_the_reference_drew_less_likely_whichever_side_it_is_on():
    # Log-probabilities, summed: chosen -4 and -2, rejected -3 and -8. The reference drew a chosen and a rejected one.
    given = Completions(COMPLETION, POLICY, REFERENCE)
    settings = PolicySettings(xpo_alpha=0.5)
    plain = compute_losses(given, settings).losses
    optimism = compute_losses(given, settings, torch.tensor([True, False])).losses - plain
    assert optimism.tolist() == pytest.approx([0.5 * -4, 0.5 * -8])
    mean = losses.mean_over_kept(optimism, torch.tensor([True, False])).item()
    assert mean == pytest.approx(-2), "a pair that is not learned from has no optimism either"


def test_ipo_compares_sums_where_oat_compares_means_per_token():
    # Log-ratios, summed: 1 and -1; 3 and -4. Per token: 1/2 and -1; 1 and -1. 1 / (2 beta) = 1.
    assert losses_by_hand(dap_algo="ipo", beta=0.5).losses.tolist() == [1.0, 36.0]
    assert losses_by_hand(dap_algo="ipo", beta=0.5, ipo_per_token=True).losses.tolist() == [0.25, 1.0]


def test_lr_dpo_compares_means_per_token_and_dpo_sums():
    sums, means = (losses_by_hand(dap_algo=algo, beta=1.0) for algo in ("dpo", "lr_dpo"))
    assert sums.losses.tolist() == pytest.approx([math.log1p(math.exp(-m)) for m in (2.0, 7.0)], abs=1e-12)
    assert means.losses.tolist() == pytest.approx([math.log1p(math.exp(-m)) for m in (1.5, 2.0)], abs=1e-12)
    assert (sums.reward_margins.tolist(), means.reward_margins.tolist()) == ([2.0, 7.0], [1.5, 2.0])


def test_the_sft_term_of_lr_dpo_divides_by_the_length_once_where_oat_divides_twice():
    plain, both = (losses_by_hand(dap_algo="lr_dpo", beta=1.0, sft_weight=weight).losses for weight in (0.0, 0.5))
    # Chosen completions: sums -4 and -3, of 2 and 3 tokens.
    assert (both - plain).tolist() == pytest.approx([0.5 * 4 / 2, 0.5 * 3 / 3], abs=1e-12)
    means, counts = torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 3.0])
    assert losses.sft_per_token(means, counts).tolist() == pytest.approx([4 / 2 / 2, 3 / 3 / 3]), "Oat's"


def test_the_sft_term_of_dpo_is_per_token_as_oats():
    plain, both = (losses_by_hand(dap_algo="dpo", sft_weight=weight).losses for weight in (0.0, 0.5))
    assert (both - plain).tolist() == pytest.approx([0.5 * 4 / 2, 0.5 * 3 / 3], abs=1e-12)


def test_bnf_divides_by_the_shorter_completion_of_the_pair_where_oat_takes_the_shortest_of_the_forward_pass():
    entropy = torch.full((10,), -1.0, dtype=torch.float64)
    ours, oats = (losses_by_hand(entropy, dap_algo="bnf", bnf_length=length) for length in ("pair", "batch"))
    # The shorter completions have 1 and 3 tokens.
    assert (ours.losses * torch.tensor([1.0, 3.0])).tolist() == pytest.approx(oats.losses.tolist(), abs=1e-12)
    first = Completions(*(part[COMPLETION % 2 == 0] for part in (COMPLETION // 2, POLICY, REFERENCE, entropy)))
    alone = compute_losses(first, PolicySettings(dap_algo="bnf"))
    assert alone.losses.tolist() == pytest.approx(ours.losses[:1].tolist(), abs=1e-12)


def test_bnf_by_hand():
    # One token each, p under policy and reference: chosen 0.5 and 0.5, rejected 0.2 and 0.8; sum of p log p: -1 both.
    logprobs, reference = (torch.tensor(p, dtype=torch.float64).log() for p in ((0.5, 0.2), (0.5, 0.8)))
    given = Completions(torch.tensor([0, 1]), logprobs, reference, torch.tensor([-1.0, -1.0], dtype=torch.float64))
    computed = compute_losses(given, PolicySettings(dap_algo="bnf"))
    rejected = 0.25 * math.log(0.2) + 0.75 / 0.8 * (-1 - 0.2 * math.log(0.2))
    assert computed.losses.item() == pytest.approx(rejected - math.log(0.5), abs=1e-5)
    assert computed.reward_margins.item() == pytest.approx(math.log(0.8 / 0.2), abs=1e-12)


def test_the_add_ons_take_length_first_and_then_what_the_chosen_completion_lost():
    # Margins 2 and 7. Length: 0.4 / 0.2 * (2 - 1) and * (3 - 4). Neither chosen completion lost anything.
    longer = losses_by_hand(dap_algo="dpo", beta=0.2, len_reg_alpha=0.4, dpo_positive_lambda=9.0)
    assert longer.losses.tolist() == pytest.approx([math.log1p(math.exp(-0.2 * m)) for m in (4.0, 5.0)], abs=1e-12)
    # The implicit reward is that of DPO, whatever is added to the loss.
    assert longer.reward_margins.tolist() == pytest.approx([0.4, 1.4])
    turned = Completions(COMPLETION, REFERENCE, POLICY)
    found = compute_losses(turned, PolicySettings(dap_algo="dpo", beta=0.2, dpo_positive_lambda=3.0))
    # Margins -2 and -7; the chosen completions lost 1 and 3.
    assert found.losses.tolist() == pytest.approx([math.log1p(math.exp(0.2 * m)) for m in (5.0, 16.0)], abs=1e-12)


def test_simpo_asks_no_reference():
    settings = PolicySettings(dap_algo="simpo", beta=2.0, gamma_beta_ratio=0.5)
    computed = compute_losses(Completions(COMPLETION, POLICY), settings)
    # Means per token: -2 and -2; -1 and -2. Gamma is 1.
    assert computed.losses.tolist() == pytest.approx([math.log1p(math.exp(1)), math.log1p(math.exp(-1))], abs=1e-12)
    assert computed.reward_margins.tolist() == [0.0, 2.0]
