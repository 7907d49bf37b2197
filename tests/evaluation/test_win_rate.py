import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.evaluation.win_rate import win_rate
from oatflow.components.statistics.intervals import outcome_interval, wilson_interval

WINS = st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.50001, 0.9, 1.0]), min_size=1, max_size=60).map(np.array)


def measured(*wins):
    return win_rate(np.array(wins, dtype=float))


def interval_of(won, tied, lost):
    n = won + tied + lost
    return outcome_interval((won + tied / 2) / n, (won + tied / 4) / n, n)


def test_by_hand():
    # Won: 0.9, 0.6. Tied: 0.5. Lost: 0.4, 0.1.  (2 + 0.5) / 5.  Mean of the probabilities: 2.5 / 5.
    result = measured(0.9, 0.6, 0.5, 0.4, 0.1)
    assert (result.win_rate, result.mean_probability) == (0.5, 0.5)
    result = measured(0.9, 0.9, 0.5, 0.1)
    assert (result.win_rate, result.mean_probability) == (2.5 / 4, pytest.approx(0.6))


def test_a_tie_is_half_a_win_where_oat_counts_a_loss():
    wins = np.full(8, 0.5)
    assert win_rate(wins).win_rate == 0.5
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


@pytest.mark.parametrize("prompts", [1, 4, 20, 200])
def test_ties_alone_do_not_prove_that_both_are_equally_good(prompts):
    tied = measured(*[0.5] * prompts)
    # Tango (1998) for a paired difference without discordant pairs: z^2 / (n + z^2), here halved.
    half = 1.959964**2 / (prompts + 1.959964**2) / 2
    assert (tied.low, tied.win_rate, tied.high) == pytest.approx((0.5 - half, 0.5, 0.5 + half))


def test_one_win_among_ties_moves_the_interval_a_little():
    alone, beside = measured(*[0.5] * 20), measured(0.9, *[0.5] * 19)
    assert beside.low > alone.low and alone.high < beside.high < alone.high + 0.1


def test_no_prompt_has_no_win_rate():
    with pytest.raises(ValueError, match="wins is empty"):
        measured()


@given(st.integers(0, 40), st.integers(1, 40))
def test_without_ties_the_interval_is_wilsons(won, lost):
    assert interval_of(won, 0, lost) == pytest.approx(wilson_interval(won / (won + lost), won + lost))


def test_the_interval_is_about_that_of_resampled_prompts():
    wins = np.repeat([1.0, 0.5, 0.0], [37, 9, 30])
    drawn = np.random.default_rng(1).choice(wins, size=(20_000, len(wins))).mean(axis=1)
    assert interval_of(37, 9, 30) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)


@given(WINS)
def test_changing_sides_turns_a_win_rate_into_its_complement(wins):
    ours, theirs = win_rate(wins), win_rate(1 - wins)
    assert theirs.win_rate == pytest.approx(1 - ours.win_rate)
    assert theirs.mean_probability == pytest.approx(1 - ours.mean_probability)
    assert theirs.low == pytest.approx(1 - ours.high)


@given(WINS)
def test_the_interval_holds_the_win_rate_and_stays_between_0_and_1(wins):
    result = win_rate(wins)
    assert 0 <= result.low <= result.win_rate <= result.high <= 1


@given(WINS, st.permutations(range(60)))
def test_the_order_of_the_prompts_does_not_matter(wins, order):
    shuffled = wins[[index for index in order if index < len(wins)]]
    one, other = win_rate(wins), win_rate(shuffled)
    assert (one.win_rate, one.low, one.high) == (other.win_rate, other.low, other.high)


@pytest.mark.parametrize("chances", [(0.5, 0.0), (0.7, 0.0), (0.2, 0.6), (0.05, 0.9), (0.6, 0.3)])
@pytest.mark.parametrize("prompts", [20, 150])
def test_nineteen_of_twenty_intervals_hold_the_true_win_rate(chances, prompts):
    won, tied = chances
    truth, held = won + tied / 2, 0
    for row in np.random.default_rng(3).multinomial(prompts, (won, tied, 1 - won - tied), size=2000):
        low, high = interval_of(*row)
        held += low <= truth <= high
    # Where nearly all are ties it is wider than it need be.
    assert 0.93 <= held / 2000 <= (1.0 if tied == 0.9 else 0.985)
