import json
from pathlib import Path

import pytest
from oatflow.components.policy.schedule import cosine_with_floor, total_steps, warmup_steps

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_dpo.json").read_text())["lr_schedule"]["cases"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_the_rate_is_oats_at_every_step_on_record(case):
    for step, expected in case["lr_at_step"].items():
        rate = cosine_with_floor(int(step), case["scheduled_total"], case["warmup"], 5e-7, 0.1)
        # The record has ten digits.
        assert rate == pytest.approx(expected, abs=1e-12)


def test_the_rate_stays_at_its_floor_when_all_planned_steps_are_taken():
    assert cosine_with_floor(500, 390, 12, 5e-7, 0.1) == pytest.approx(5e-8)


def test_without_warm_up_the_first_step_is_taken_at_the_peak():
    assert cosine_with_floor(0, 10, 0, 1e-5, 0.1) == 1e-5


def test_a_single_step_that_is_all_warm_up_has_the_peak_rate():
    assert cosine_with_floor(1, 1, 1, 1e-5, 0.1) == pytest.approx(1e-5)


def test_warm_up_is_rounded_up_and_may_be_none():
    assert (warmup_steps(390, 0.03), warmup_steps(48, 0.03), warmup_steps(48, 0.0)) == (12, 2, 0)


@pytest.mark.parametrize(
    ("queries", "rollout", "epochs", "batch", "expected"),
    [(384, 64, 1, 8, 48), (100, 64, 1, 8, 13), (100, 64, 2, 8, 26), (5, 64, 1, 8, 1), (1, 1, 1, 128, 1)],
)
def test_the_steps_of_an_experiment_are_those_of_its_rounds_the_last_one_smaller(
    queries, rollout, epochs, batch, expected
):
    assert total_steps(queries, rollout, epochs, batch) == expected
