import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.evaluation.win_rate import win_rate
from oatflow.components.statistics.bootstrap import outcome_interval

WINS = st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.50001, 0.9, 1.0]), min_size=1, max_size=60).map(np.array)


def measured(*wins, samples=2000, seed=0):
    return win_rate(np.array(wins, dtype=float), samples, seed)


def test_by_hand():
    # Won: 0.9, 0.6. Tied: 0.5. Lost: 0.4, 0.1.  (2 + 0.5) / 5.  Mean of the probabilities: 2.5 / 5.
    result = measured(0.9, 0.6, 0.5, 0.4, 0.1)
    assert (result.win_rate, result.mean_probability) == (0.5, 0.5)
    result = measured(0.9, 0.9, 0.5, 0.1)
    assert (result.win_rate, result.mean_probability) == (2.5 / 4, pytest.approx(0.6))


def test_a_tie_is_half_a_win_where_oat_counts_a_loss():
    wins = np.full(8, 0.5)
    assert win_rate(wins, 1000, 0).win_rate == 0.5
    assert (wins > 0.5).mean() == 0.0  # Oat's eval/rm_win_rate


def test_how_clearly_a_prompt_is_won_moves_only_the_mean_probability():
    narrow, clear = measured(0.51, 0.51, 0.49), measured(1.0, 1.0, 0.0)
    assert narrow.win_rate == clear.win_rate == pytest.approx(2 / 3)
    assert narrow.mean_probability < clear.mean_probability


def test_one_prompt_is_enough_for_a_number_and_says_little():
    result = measured(0.7)
    assert (result.win_rate, result.mean_probability, result.high) == (1.0, 0.7, 1.0)
    # Wilson (1927) for 1 of 1: 1 / (1 + 1.96**2).
    assert result.low == pytest.approx(0.20655, abs=1e-5)


def test_a_few_equal_outcomes_do_not_prove_anything():
    won, lost = measured(*[0.9] * 4), measured(*[0.1] * 4)
    assert (won.low, won.high) == pytest.approx((4 / (4 + 1.959964**2), 1.0))
    assert (lost.low, lost.high) == pytest.approx((0.0, 1 - won.low))
    assert won.low == pytest.approx(0.5101, abs=1e-4) and measured(*[0.9] * 3).low < 0.5


def test_a_tie_is_half_a_win_on_both_sides():
    tied = measured(0.5)
    assert (tied.low, tied.win_rate, tied.high) == (0.5, 0.5, 0.5)


def test_no_prompt_has_no_win_rate():
    with pytest.raises(ValueError, match="wins is empty"):
        measured()


def test_the_interval_of_two_prompts_by_hand():
    # Drawing 2 of {won, lost} with replacement: 0 with probability 1/4, 1/2 with 1/2, 1 with 1/4.
    assert outcome_interval(np.array([1, 0, 1]), 10_000, 0) == (0.0, 1.0)


def test_the_interval_is_the_one_of_resampled_prompts():
    wins = np.repeat([1.0, 0.5, 0.0], [37, 9, 30])
    drawn = np.random.default_rng(1).choice(wins, size=(20_000, len(wins))).mean(axis=1)
    slow = np.quantile(drawn, [0.025, 0.975])
    assert outcome_interval(np.array([37, 9, 30]), 20_000, 0) == pytest.approx(slow, abs=1 / len(wins))


def test_the_interval_is_as_wide_as_the_normal_law_says():
    low, high = outcome_interval(np.array([650, 0, 350]), 10_000, 0)
    half = 1.96 * np.sqrt(0.65 * 0.35 / 1000)
    assert (low, high) == pytest.approx((0.65 - half, 0.65 + half), abs=0.003)


def test_the_same_seed_gives_the_same_interval_and_another_seed_hardly_another():
    wins = np.random.default_rng(5).random(101)
    one, same, other = (win_rate(wins, 5000, seed) for seed in (0, 0, 1))
    assert one == same
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.02)


@given(WINS)
def test_changing_sides_turns_a_win_rate_into_its_complement(wins):
    ours, theirs = win_rate(wins, 2000, 0), win_rate(1 - wins, 2000, 0)
    assert theirs.win_rate == pytest.approx(1 - ours.win_rate)
    assert theirs.mean_probability == pytest.approx(1 - ours.mean_probability)
    step = 1 / (2 * len(wins))
    assert theirs.low == pytest.approx(1 - ours.high, abs=2.1 * step)


@given(WINS)
def test_the_interval_holds_the_win_rate_and_stays_between_0_and_1(wins):
    result = win_rate(wins, 2000, 0)
    assert 0 <= result.low <= result.win_rate <= result.high <= 1


@given(WINS, st.permutations(range(60)))
def test_the_order_of_the_prompts_does_not_matter(wins, order):
    shuffled = wins[[index for index in order if index < len(wins)]]
    one, other = win_rate(wins, 500, 0), win_rate(shuffled, 500, 0)
    assert (one.win_rate, one.low, one.high) == (other.win_rate, other.low, other.high)


@pytest.mark.parametrize("truth", [0.5, 0.7])
def test_nineteen_of_twenty_intervals_hold_the_true_win_rate(truth):
    experiments, prompts = 400, 150
    won = np.random.default_rng(3).binomial(prompts, truth, size=experiments)
    held = 0
    for number, wins in enumerate(won):
        low, high = outcome_interval(np.array([wins, 0, prompts - wins]), 1000, number)
        held += low <= truth <= high
    assert 0.92 <= held / experiments <= 0.98
