"""The ensemble's rewards and its beginning, against Oat's numbers and by hand."""

import json
import math
from pathlib import Path

import pytest
import torch
from oatflow.components.reward_model.network import compute_rewards, initial_weights

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_exploration.json").read_text())["enn"]
OATS_NAMES = {"hidden_1": "nn1", "hidden_2": "nn2", "out": "nn_out"}


def tensor(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def golden_weights(params):
    return {
        f"{ours}.{kind}": tensor(params[f"{oats}.{kind}"])
        for ours, oats in OATS_NAMES.items()
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("activation", ["relu", "swish"])
def test_rewards_are_oats(activation):
    golden = GOLDEN["forward"][activation]
    found = compute_rewards(golden_weights(golden["params"]), tensor(golden["features_M_N_d"]), activation)
    assert found.shape == (3, 2, 3)
    torch.testing.assert_close(found, tensor(golden["rewards_E_M_N_1"]).squeeze(-1), atol=1e-6, rtol=0)


def test_a_member_of_one_unit_is_worked_by_hand():
    weights = {
        "hidden_1.weight": tensor([[[2.0], [-1.0]]]),
        "hidden_1.bias": tensor([[0.5]]),
        "hidden_2.weight": tensor([[[3.0]]]),
        "hidden_2.bias": tensor([[-1.0]]),
        "out.weight": tensor([[[0.1]]]),
        "out.bias": tensor([[7.0]]),
    }
    # 2 * 1 - 1 * 0.5 + 0.5 = 2; 3 * 2 - 1 = 5; 0.1 * 5 + 7 = 7.5.  The other answer leaves both units at zero.
    assert compute_rewards(weights, tensor([[1.0, 0.5], [-1.0, 0.0]]), "relu").tolist() == [[7.5, 7.0]]


def test_an_answer_is_worth_the_same_alone_and_among_others():
    weights = initial_weights(3, 4, 5, seed=1)
    answers = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    together = compute_rewards(weights, answers, "relu")
    torch.testing.assert_close(together[:, 1, 2], compute_rewards(weights, answers[1, 2], "relu"))
    assert compute_rewards(weights, answers[:, :0], "relu").shape == (3, 2, 0)


def test_a_member_is_the_same_alone_and_among_others():
    weights = initial_weights(3, 4, 5, seed=1)
    answers = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    alone = {name: tensor[1:2] for name, tensor in weights.items()}
    torch.testing.assert_close(
        compute_rewards(alone, answers, "swish")[0], compute_rewards(weights, answers, "swish")[1]
    )


def test_the_shapes_at_oats_defaults_are_oats():
    shapes = {name: list(tensor.shape) for name, tensor in initial_weights(20, 2048, 128, seed=0).items()}
    oats = GOLDEN["param_shapes_at_defaults"]
    assert shapes == {
        f"{ours}.{kind}": oats[f"{name}.{kind}"] for ours, name in OATS_NAMES.items() for kind in ("weight", "bias")
    }


def test_initial_weights_have_oats_law():
    weights = initial_weights(20, 256, 128, seed=3)
    expected = {"hidden_1.weight": GOLDEN["init"]["expected_std"], "hidden_2.weight": 1 / (2 * math.sqrt(128))}
    for name, std in expected.items():
        drawn = weights[name].flatten()
        n = len(drawn)
        assert drawn.mean().item() == pytest.approx(0, abs=5 * std / math.sqrt(n))
        assert drawn.std().item() == pytest.approx(std, abs=5 * std / math.sqrt(2 * n))
        # Not cut off at two standard deviations.
        tails = GOLDEN["init"]["gaussian_expectation"]
        assert (drawn.abs() > 2 * std).double().mean().item() == pytest.approx(tails, abs=5 * math.sqrt(tails / n))
    assert all(not weights[f"{layer}.bias"].any() for layer in OATS_NAMES)


def test_equal_seeds_draw_equal_weights_and_leave_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one, same, other = (initial_weights(2, 3, 4, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["out.weight"], other["out.weight"])


def test_no_two_members_begin_alike():
    weights = initial_weights(5, 8, 4, seed=0)["hidden_1.weight"].flatten(1)
    assert len(weights.unique(dim=0)) == 5
