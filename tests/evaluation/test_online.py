"""Both members of a duel against the opponent: what an agent that must answer well all along is measured by."""

import numpy as np
import pytest
from oatflow.components.evaluation.match import measure_duels
from oatflow.components.statistics.bootstrap import mean_interval, outcome_interval


def test_a_duel_counts_with_the_mean_of_its_two_members_a_tie_being_half_a_win():
    # Duels: two wins; a win and a loss; a tie and a loss.
    found = measure_duels([0.9, 0.6, 0.8, 0.1, 0.5, 0.2], 1000, 1)
    assert found["online_win_rate"] == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert found["online_mean_probability"] == pytest.approx(3.1 / 6)
    assert 0.25 <= found["online_low"] <= found["online_win_rate"] <= found["online_high"] <= 1


def test_a_round_without_duels_measures_nothing():
    assert measure_duels([], 1000, 1) == {}


def test_the_interval_of_a_mean_is_that_of_the_win_rate_where_outcomes_are_wins_ties_and_losses():
    outcomes = np.array([1.0] * 6 + [0.5] * 3 + [0.0] * 11)
    # The same law, drawn with the outcomes in the other order: equal up to the noise of 100,000 resamples.
    expected = outcome_interval(np.array([6, 3, 11]), 100_000, 3)
    assert mean_interval(outcomes, 100_000, 3) == pytest.approx(expected, abs=0.026)


def test_equal_outcomes_leave_no_doubt():
    assert mean_interval(np.full(7, 0.25), 1000, 1) == (0.25, 0.25)
