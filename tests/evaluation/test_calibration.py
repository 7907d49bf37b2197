import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.evaluation.calibration import brier_score, expected_calibration_error, measure_agreement

DUELS = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=40)


def arrays(*values):
    return tuple(np.array(part, dtype=float) for part in values)


def test_the_brier_score_by_hand():
    # (0.2^2 + 0.4^2 + 0.5^2) / 3
    assert brier_score(*arrays([0.8, 0.4, 0.5], [1, 0, 1])) == pytest.approx(0.15)


def test_always_one_half_scores_a_quarter():
    assert brier_score(*arrays([0.5, 0.5], [1, 0])) == 0.25


def test_the_calibration_error_by_hand():
    # Bin [0.8, 0.9): predicted 0.8 and 0.84, won 1 and 0, gap |1.64 - 1|. Bin [0.1, 0.2): 0.1 against 0. Both / 3.
    assert expected_calibration_error(*arrays([0.8, 0.84, 0.1], [1, 0, 0])) == pytest.approx((0.64 + 0.1) / 3)


def test_opposite_errors_cancel_within_a_bin_and_not_between_bins():
    predicted, won = arrays([0.25, 0.75], [1, 0])
    assert expected_calibration_error(predicted, won, bins=1) == 0.0
    assert expected_calibration_error(predicted, won, bins=2) == 0.75


def test_a_certain_prediction_falls_into_the_last_bin():
    assert expected_calibration_error(*arrays([1.0, 0.0], [1, 0])) == 0.0


def test_agreement_by_hand():
    # Right, wrong, undecided prediction, undecided outcome.
    assert measure_agreement(*arrays([0.9, 0.6, 0.5, 0.7], [1, 0, 1, 0.5])) == (1 + 0 + 0.5 + 0.5) / 4


def test_one_duel_is_enough_and_none_is_refused():
    assert measure_agreement(*arrays([0.7], [1])) == 1.0
    for measure in (brier_score, expected_calibration_error, measure_agreement):
        with pytest.raises(ValueError, match="predicted is empty"):
            measure(*arrays([], []))


def test_shapes_that_would_broadcast_are_refused():
    predicted, won = arrays([[0.5], [0.5]], [1, 0])
    with pytest.raises(ValueError, match=r"predicted has shape \(2, 1\) and won \(2,\)"):
        brier_score(predicted, won)


@given(DUELS)
def test_changing_sides_changes_neither_the_brier_score_nor_the_agreement(duels):
    predicted, won = arrays(*zip(*duels, strict=True))
    assert brier_score(1 - predicted, 1 - won) == pytest.approx(brier_score(predicted, won))
    decided = np.abs(predicted - 0.5) > 1e-9
    if decided.all():
        assert measure_agreement(1 - predicted, 1 - won) == pytest.approx(measure_agreement(predicted, won))


@given(DUELS)
def test_every_measure_lies_between_0_and_1(duels):
    predicted, won = arrays(*zip(*duels, strict=True))
    assert all(
        0 <= measure(predicted, won) <= 1 for measure in (brier_score, expected_calibration_error, measure_agreement)
    )
