"""What a round reports of its training is a mean over its pairs."""

import pytest
from oatflow.components.policy.trainer import average_curve


def point(pairs, accuracy, loss, rows=None):
    return {
        "pairs": pairs, "rows": rows or pairs, "accuracy": accuracy, "loss": loss, "reward_margin": accuracy,
        "chosen_logprob": -loss, "rejected_logprob": -loss,
    }  # fmt: skip


def test_every_pair_counts_once_however_small_its_step():
    # 57 pairs in steps of 8: the last one holds a single pair, which is wrong.
    curve = [point(8, 1.0, 0.5)] * 7 + [point(1, 0.0, 2.0)]
    found = average_curve(curve)
    assert found["accuracy"] == pytest.approx(56 / 57)
    assert found["loss"] == pytest.approx((56 * 0.5 + 2.0) / 57)
    assert found["chosen_logprob"] == pytest.approx(-found["loss"])


def test_the_loss_of_oats_mean_counts_clashes_and_the_rest_does_not():
    found = average_curve([point(1, 1.0, 0.2, rows=4), point(4, 0.0, 0.7)])
    assert found["loss"] == pytest.approx((4 * 0.2 + 4 * 0.7) / 8)
    assert found["accuracy"] == pytest.approx(1 / 5)


def test_a_round_without_a_step_has_no_average():
    assert average_curve([]) == {}
