"""Both members of a duel against the opponent: what an agent that must answer well all along is measured by."""

import pytest
from oatflow.components.evaluation.match import measure_duels


def test_a_duel_counts_with_the_mean_of_its_two_members_a_tie_being_half_a_win():
    # Duels: two wins; a win and a loss; a tie and a loss.
    found = measure_duels([0.9, 0.6, 0.8, 0.1, 0.5, 0.2])
    assert found["online_win_rate"] == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert found["online_mean_probability"] == pytest.approx(3.1 / 6)
    assert 0 < found["online_low"] <= found["online_win_rate"] <= found["online_high"] < 1


def test_a_round_without_duels_measures_nothing():
    assert measure_duels([]) == {}


def test_duels_that_all_end_alike_leave_a_doubt():
    found = measure_duels([0.9, 0.1] * 7)
    assert found["online_low"] < found["online_win_rate"] == 0.5 < found["online_high"]
