from fractions import Fraction
from math import comb, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.statistics.bootstrap import (
    draw_prompts,
    draw_seeds,
    estimate_from,
    find_reach,
    resample_rates,
    resample_seeds,
    score_outcomes,
    upper_median,
)
from oatflow.components.statistics.equal_length import fit_equal_length, refuse_length_control
from oatflow.components.statistics.exact import paired_test, reject_together, sign_test
from oatflow.components.statistics.intervals import outcome_interval


def judged(n, level, slope, seed=0):
    """Outcomes whose log-odds are `level` at equal length and rise by `slope` with the squashed length difference."""
    random = np.random.default_rng(seed)
    longer = np.round(random.normal(6, 12, n))
    chance = 1 / (1 + np.exp(-(level + slope * np.tanh(longer / longer.std()))))
    return (random.random(n) < chance).astype(float), longer


def test_the_sign_test_is_the_exact_binomial_one():
    # 8 of 10: twice the sum of C(10, 8), C(10, 9) and C(10, 10) in 1024, as in any table.
    assert sign_test(8, 2) == pytest.approx(2 * (45 + 10 + 1) / 1024)
    assert sign_test(5, 5) == 1.0
    assert sign_test(0, 0) is None


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_does_not_mind_whose_side_it_is_told_from(wins, losses):
    assert sign_test(wins, losses) == sign_test(losses, wins)
    if wins + losses:
        tail = sum(Fraction(comb(wins + losses, k), 2 ** (wins + losses)) for k in range(min(wins, losses) + 1))
        assert sign_test(wins, losses) == pytest.approx(float(min(1, 2 * tail)))


def test_the_sign_test_holds_for_more_prompts_than_a_float_has_powers_of_two():
    assert 0 < sign_test(5_000, 5_200) < 0.05


def test_the_paired_test_is_students():
    # t = 2 / (1 / sqrt(3)) = 3.4641 with 2 degrees of freedom.
    assert paired_test([1.0, 2.0, 3.0]) == pytest.approx(0.0742, abs=1e-4)
    assert paired_test([0.5]) is None
    assert (paired_test([0.0, 0.0]), paired_test([0.1, 0.1])) == (1.0, 0.0)


def test_several_hypotheses_are_rejected_as_holm_says():
    # 0.01 < 0.05 / 4 and 0.015 < 0.05 / 3, but 0.03 > 0.05 / 2: it stops there, although 0.04 < 0.05.
    assert reject_together([0.04, 0.01, 0.03, 0.015]) == [False, True, False, True]
    assert reject_together([]) == []


def test_a_tie_is_half_a_win():
    assert score_outcomes([0.9, 0.5, 0.1, 0.500001]).tolist() == [1.0, 0.5, 0.0, 1.0]


def test_a_win_rate_bought_with_length_alone_is_even_at_equal_length():
    won, longer = judged(2000, 0.0, 2.0)
    value, resampled = fit_equal_length(won, longer, draw_prompts(len(won), 1))
    assert won.mean() > 0.57 and longer.mean() > 5
    assert estimate_from(value, resampled).low < 0.5 < estimate_from(value, resampled).high


def test_where_length_decides_nothing_the_win_rate_at_equal_length_is_the_raw_one():
    won, longer = judged(2000, 0.6, 0.0)
    assert fit_equal_length(won, longer, draw_prompts(len(won), 1))[0] == pytest.approx(won.mean(), abs=0.02)


def test_the_regression_finds_the_roots_of_its_own_equations():
    won, longer = judged(200, 0.3, 1.0)
    value, _ = fit_equal_length(won, longer, draw_prompts(200, 1))
    x, level = np.tanh(longer / longer.std()), np.log(value / (1 - value))
    slopes = np.linspace(-5, 5, 100_001)
    chances = 1 / (1 + np.exp(-(level + slopes[:, None] * x)))
    slope = slopes[np.abs((won - chances).sum(1)).argmin()]
    chance = 1 / (1 + np.exp(-(level + slope * x)))
    assert (won - chance).sum() == pytest.approx(0, abs=0.02)
    assert ((won - chance) * x).sum() == pytest.approx(0.1 * slope, abs=0.02)


def test_length_that_tells_wins_from_losses_by_itself_leaves_the_answer_finite():
    longer = np.array([-5.0, -4, -3, -2, -1, 1, 2, 3, 4, 5] * 4)
    value, resampled = fit_equal_length((longer > 0).astype(float), longer, draw_prompts(40, 1))
    assert value == pytest.approx(0.5, abs=1e-6) and np.isfinite(resampled).all()


@pytest.mark.parametrize(
    ("won", "longer", "why"),
    [
        ([1.0] * 30 + [0.0] * 9, [-1.0, 1, 2] * 13, "needs 10 wins and 10 losses; there are 30 and 9"),
        ([1.0] * 20 + [0.0] * 20, [0.0] * 40, "at equal length already"),
        ([1.0] * 20 + [0.0] * 20, [1.0, 2.0] * 20, "all answers are longer"),
        ([1.0] * 20 + [0.0] * 20, [-1.0, -2.0] * 20, "all answers are shorter"),
        ([1.0] * 20 + [0.0] * 20, [-1.0, 1.0] * 20, ""),
    ],
)
def test_a_win_rate_at_equal_length_is_refused_where_the_data_cannot_carry_it(won, longer, why):
    found = refuse_length_control(np.array(won), np.array(longer))
    assert why in found and bool(found) == bool(why)


def test_prompts_that_were_not_judged_weigh_nothing():
    won = np.array([[1.0, np.nan, 0.0, 0.0], [1.0, 1.0, 1.0, np.nan]])
    rates = resample_rates(won, np.full((1, 4), 0.25))
    assert rates.tolist() == [[pytest.approx(1 / 3), 1.0]]


def test_seeds_are_drawn_after_prompts_and_share_them():
    rates = [np.array([0.1, 0.2]), np.array([0.5, 0.6])]
    drawn = resample_seeds(rates, np.array([[0, 0], [1, 0]]))
    assert drawn.tolist() == [[0.1, 0.1], [0.6, 0.2]]


def test_an_interval_over_seeds_that_differ_is_wider_than_one_over_prompts_alone():
    random = np.random.default_rng(0)
    won = [(random.random(400) < rate).astype(float) for rate in (0.45, 0.5, 0.6, 0.7)]
    weights = draw_prompts(400, 1)
    rates = [weights @ row for row in won]
    drawn = resample_seeds(rates, draw_seeds(4, 2)[: len(weights)]).mean(1)
    pooled = np.stack(rates, 1).mean(1)
    assert np.ptp(np.quantile(drawn, [0.025, 0.975])) > 1.5 * np.ptp(np.quantile(pooled, [0.025, 0.975]))


def test_a_level_is_reached_by_the_first_round_whose_lower_end_is_at_or_above_it():
    lows, queries = np.array([[0.5, 0.6, 0.55, 0.7], [0.5, 0.5, 0.5, 0.5]]), [10, 20, 30, 40]
    assert find_reach(lows, queries, 0.6).tolist() == [20, inf]
    assert find_reach(lows, queries, 0.5).tolist() == [10, 10]


def test_noise_does_not_reach_a_level():
    # Ten measured rounds of a policy that truly wins 57%: each round comes out above 60% often enough by chance.
    won = np.random.default_rng(0).random((1000, 10, 200)) < 0.57
    rates = won.mean(-1)
    lows, _ = outcome_interval(rates, rates, 200)
    assert (rates >= 0.6).any(-1).mean() > 0.5
    assert np.isfinite(find_reach(lows, range(10), 0.6)).mean() < 0.05


def test_more_than_half_of_the_seeds_must_have_reached_a_level():
    assert upper_median(np.array([[20.0, inf], [20, 30], [10, inf]])).tolist() == [inf, 30, inf]
    assert upper_median(np.array([20.0, inf, 40])) == 40


def test_intervals_that_hold_together_are_wider():
    drawn = np.random.default_rng(0).normal(size=1000)
    one, of_seven = estimate_from(0.0, drawn), estimate_from(0.0, drawn, comparisons=7)
    assert of_seven.low < one.low < one.high < of_seven.high


def test_an_interval_may_end_in_never():
    found = estimate_from(20.0, np.array([10.0, 20, 20, inf]))
    assert (found.low, found.high) == (10, inf)
