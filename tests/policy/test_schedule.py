"""The learning rate against Oat's record and transformers' own schedulers, and how many steps a budget pays for."""

import json
from math import ceil
from pathlib import Path

import pytest
import torch
from oatflow.components.policy.buffer import buffer_sizes
from oatflow.components.policy.schedule import (
    SCHEDULES,
    constant_rate,
    cosine_rate,
    polynomial_rate,
    rows_of_rounds,
    total_steps,
    warmup_steps,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_preference.json").read_text())["lr_schedule"]
CASES = pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])


@CASES
def test_the_rate_is_oats_at_every_step_on_record(case):
    schedule = SCHEDULES[GOLDEN["defaults"]["lr_scheduler"]]
    for step, expected in case["lr_at_step"].items():
        rate = schedule(int(step), case["scheduled_total"], case["warmup"], GOLDEN["defaults"]["learning_rate"], 0.1)
        # The record has ten digits.
        assert rate == pytest.approx(expected, abs=1e-12)


# The commands in Oat's documentation; the one of SEA sets a ratio of its own.
@CASES
def test_the_warm_up_is_as_long_as_oats(case):
    ratio = 0.02 if case["name"] == "1b_sea_dpo" else GOLDEN["defaults"]["lr_warmup_ratio"]
    assert warmup_steps(case["scheduled_total"], ratio) == case["warmup"]


def rates_of_transformers(name, total, warmup, peak, **options):
    """Return the rate at each step from 0 to `total`, read from an optimizer that is stepped."""
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=options or None)
    rates = []
    for _ in range(total + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("total", "warmup"), [(40, 0), (40, 2), (7, 6), (1, 0)])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("peak", [5e-7, 1e-3])
def test_the_rate_is_transformers_step_by_step(name, total, warmup, peak):
    options = {"min_lr": 0.1 * peak} if name == "cosine_with_min_lr" else {}
    ours = [SCHEDULES[name](step, total, warmup, peak, 0.1) for step in range(total + 1)]
    assert ours == pytest.approx(rates_of_transformers(name, total, warmup, peak, **options), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("schedule", "end"), [(cosine_rate, 5e-8), (polynomial_rate, 1e-7), (constant_rate, 5e-7)])
def test_the_rate_stays_at_its_end_when_all_planned_steps_are_taken(schedule, end):
    assert [schedule(step, 390, 12, 5e-7, 0.1) for step in (390, 391, 5000)] == pytest.approx([end] * 3, abs=1e-15)


def test_a_peak_below_the_end_of_the_polynomial_is_its_end_where_transformers_refuses_it():
    assert [polynomial_rate(step, 10, 0, 2e-8, 0.1) for step in (0, 5, 10)] == pytest.approx([2e-8] * 3, abs=1e-15)


@pytest.mark.parametrize("schedule", SCHEDULES.values())
def test_without_warm_up_the_first_step_is_taken_at_the_peak(schedule):
    assert schedule(0, 10, 0, 1e-5, 0.1) == pytest.approx(1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES.values())
def test_a_single_step_that_is_all_warm_up_has_the_peak_rate(schedule):
    assert schedule(1, 1, 1, 1e-5, 0.1) == pytest.approx(1e-5)


def test_warm_up_is_rounded_up_and_may_be_none():
    assert (warmup_steps(390, 0.03), warmup_steps(48, 0.03), warmup_steps(48, 0.0)) == (12, 2, 0)


def test_the_last_round_brings_what_is_left_of_the_budget():
    assert rows_of_rounds(384, 64, 6) == [64] * 6
    assert rows_of_rounds(100, 64, 2) == [64, 36]
    assert rows_of_rounds(5, 64, 1) == [5]
    assert rows_of_rounds(1, 1, 1) == [1]


def test_where_some_pairs_cost_no_query_every_round_is_full():
    # Two rounds of 64 queries, then 45 queries and 19 pairs that a member labels in each.
    assert rows_of_rounds(256, 64, 5) == [64] * 5
    assert rows_of_rounds(256, 64, 6) == [64] * 6


@pytest.mark.parametrize(
    ("queries", "rollout", "epochs", "batch", "expected"),
    [(384, 64, 1, 8, 48), (100, 64, 1, 8, 13), (100, 64, 2, 8, 26), (5, 64, 1, 8, 1), (1, 1, 1, 128, 1)],
)
@pytest.mark.parametrize("leftover", ["spread", "own_step"])
def test_the_steps_of_an_experiment_are_those_of_its_rounds_the_last_one_smaller(
    queries, rollout, epochs, batch, expected, leftover
):
    rows = rows_of_rounds(queries, rollout, ceil(queries / rollout))
    assert total_steps(rows, epochs, batch, None, leftover) == expected


def test_the_course_of_the_learning_rate_counts_the_steps_that_are_taken():
    assert total_steps([57, 57], 1, 8, None, "spread") == 14
    assert total_steps([57, 57], 1, 8, None, "own_step") == 16


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        # Two epochs over 64, 64 and 36 pairs in batches of 8: 16, 16 and 10 steps.
        (None, 42),
        (100, 42),
        (16, 42),
        (12, 34),
        (1, 3),
    ],
)
def test_no_round_takes_more_steps_than_max_sgd_steps(limit, expected):
    assert total_steps(rows_of_rounds(164, 64, 3), 2, 8, limit) == expected


def test_a_round_makes_the_steps_of_its_whole_buffer():
    # Ten a round, room for 25, batches of 8: 10, 20, 25, 25 pairs make 2, 3, 4, 4 steps, or 1, 3, 3, 3.
    sizes = buffer_sizes([10, 10, 10, 10], 25, None)
    assert total_steps(sizes, 1, 8, None, "own_step") == 13
    assert total_steps(sizes, 1, 8, 3, "own_step") == 11
    assert total_steps(sizes, 1, 8, None) == 10


def test_an_experiment_in_which_nothing_is_learned_has_no_steps():
    assert total_steps([], 1, 8, None) == 0 == total_steps([0], 1, 8, None)
