"""What the members together believe, against Oat's numbers and by hand."""

import json
import math
from pathlib import Path

import pytest
import torch
from oatflow.components.reward_model import uncertainty
from oatflow.components.reward_model.uncertainty import kl_divergence, probabilities_variance, win_probability

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_exploration.json").read_text())["uncertainty"]
FUNCTIONS = ["logits_variance", "probabilities_variance", "bernoulli_variance", "kl_divergence"]


def tensor(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_uncertainties_are_oats(name):
    found = getattr(uncertainty, name)(tensor(GOLDEN["rewards_E_M_N_1"]).squeeze(-1))
    torch.testing.assert_close(found, tensor(GOLDEN[name]), atol=1e-9, rtol=0)


def test_win_probabilities_are_oats():
    golden = GOLDEN["bradley_terry"]
    one_member = win_probability(tensor([golden["s1"]]), tensor([golden["s2"]]))
    # Oat worked these out in single precision.
    torch.testing.assert_close(one_member, tensor(golden["p"]), atol=1e-7, rtol=0)


def test_a_win_probability_is_the_mean_of_the_members_and_not_that_of_their_mean_reward():
    first, second = tensor([[0.0], [math.log(9)]]), tensor([[math.log(3)], [0.0]])
    # 1 of 4, and 9 of 10.
    assert win_probability(first, second).item() == pytest.approx((0.25 + 0.9) / 2)
    assert win_probability(second, first).item() == pytest.approx(1 - (0.25 + 0.9) / 2)


def test_answers_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        win_probability(torch.zeros(3, 4), torch.zeros(3, 1))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_duel_has_one_uncertainty_whoever_comes_first(name):
    table = getattr(uncertainty, name)(torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0)).double())
    torch.testing.assert_close(table, table.transpose(1, 2))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_where_members_agree_only_the_outcome_is_open(name):
    agreed = tensor([[0.0, math.log(3)]]).expand(4, 1, 2)
    expected = 3 / 16 if name == "bernoulli_variance" else 0.0
    assert getattr(uncertainty, name)(agreed)[0, 0, 1].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_member_never_disagrees_with_itself(name):
    table = getattr(uncertainty, name)(torch.tensor([[[1.0, -2.0, 5.0]]]))
    assert table.shape == (1, 3, 3) and torch.isfinite(table).all()
    assert name == "bernoulli_variance" or not table.any()


def test_members_who_are_sure_of_opposites_differ_most():
    certain = tensor([[[1000.0, -1000.0]], [[-1000.0, 1000.0]]])
    assert kl_divergence(certain)[0, 0, 1].item() == pytest.approx(math.log(2))
    # Probabilities 1 and 0, and the unbiased variance of two.
    assert probabilities_variance(certain)[0, 0, 1].item() == pytest.approx(0.5)
