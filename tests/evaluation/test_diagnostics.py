"""What a round's exploration was worth, by hand."""

import numpy as np
import pytest
from oatflow.components.evaluation.calibration import calibrated_error
from oatflow.components.evaluation.diagnostics import (
    Labelled,
    measure_pairs,
    measure_predictions,
    measure_regret,
    measure_synthetic,
)
from oatflow.components.records.records import Duel, KnownReward, Preference


def labelled(first, second, chosen, rewards=(), predicted=None, recommended=None, synthetic=None):
    duel = Duel("d", "p", "?", "a", "b", first, second, False, predicted=predicted, recommended=recommended)
    preference = Preference("d", "p", False, 0.5, chosen, None, None, "somebody", synthetic)
    return Labelled(duel, preference, rewards)


def test_regret_is_what_the_best_candidate_would_have_given_more():
    rows = [labelled(0, 1, "first", (1.0, 2.0, 4.0), recommended=1), labelled(2, 1, "first", (1.0, 2.0, 4.0))]
    # Best 4: less the mean of 1 and 2, and of 4 and 2; the one answer that was recommended is worth 2.
    found = measure_regret(rows)
    assert (found["duel_regret"], found["regret_duels"], found["simple_regret"]) == (pytest.approx(1.75), 2, 2.0)
    # Student's interval of two values: 1.75 +- 12.706 * 0.75; and no regret is negative.
    assert (found["duel_regret_low"], found["duel_regret_high"]) == (
        0.0,
        pytest.approx(1.75 + 12.7062 * 0.75, rel=1e-4),
    )
    # One answer does not say how far it can be trusted.
    assert "simple_regret_low" not in found


def test_where_no_reward_is_known_there_is_no_regret():
    assert measure_regret([labelled(0, 1, "first", recommended=1)]) == {}


def test_labels_are_compared_with_what_was_foretold():
    rows = [labelled(0, 1, "first", predicted=0.8), labelled(0, 1, "second", predicted=0.6),
            labelled(0, 1, None, predicted=0.5), labelled(0, 1, "first")]  # fmt: skip
    found = measure_predictions(rows, 1)
    assert (found["rm_foretold"], found["rm_accuracy"]) == (2, 0.5)
    assert found["rm_brier"] == pytest.approx((0.04 + 0.36) / 2)
    assert found["rm_ece"] == pytest.approx((0.2 + 0.6) / 2)


def test_without_a_forecast_nothing_is_compared():
    assert measure_predictions([labelled(0, 1, "first")], 1) == {}


def test_synthetic_labels_are_compared_with_known_rewards_where_these_decide():
    right = [labelled(0, 1, "first", (2.0, 1.0)), labelled(1, 0, "first", (1.0, 2.0))]
    rows = [*right, labelled(0, 1, "first", (1.0, 2.0)), labelled(0, 1, "first", (1.0, 1.0)), labelled(0, 1, "first")]
    assert measure_synthetic(rows) == {"synthetic_accuracy": pytest.approx(2 / 3), "synthetic_known": 3}
    assert measure_synthetic([]) == {}


def test_all_pairs_of_candidates_are_ranked_whichever_duels_were_picked():
    known = [KnownReward(*row) for row in [("p", 0, 1.0), ("p", 1, 2.0), ("p", 2, 3.0), ("q", 0, 1.0), ("q", 1, 1.0),
             ("r", 0, 5.0), ("r", 1, 4.0)]]  # fmt: skip
    # p: 1 < 2 and 1 < 3 are right, 2 < 3 is wrong; q: equal rewards; r: equal beliefs.
    found = measure_pairs(known, [0.1, 0.9, 0.8, 0.0, 1.0, 0.3, 0.3])
    assert found["rm_pair_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2) and found["rm_pair_prompts"] == 2
    assert found["rm_pair_low"] < found["rm_pair_accuracy"] < found["rm_pair_high"]
    assert measure_pairs([], [0.1]) == measure_pairs(known[3:5], [0.1, 0.2]) == {}


def test_a_perfectly_calibrated_forecaster_has_a_calibration_error_by_chance():
    random = np.random.default_rng(0)
    for n, least, most in ((64, 0.07, 0.14), (6400, 0.005, 0.02)):
        floor = calibrated_error(random.uniform(0.3, 0.9, n), seed=1, draws=50)
        assert least < floor < most
