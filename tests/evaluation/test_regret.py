import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.evaluation.regret import duel_regret, simple_regret

REWARDS = np.array([[1.0, 3.0, 2.0], [-1.0, -4.0, -2.0]])


def test_a_duels_regret_by_hand():
    # 3 - (1 + 2) / 2 and -1 - (-4 - 2) / 2.
    assert duel_regret(REWARDS, np.array([[0, 2], [1, 2]])).tolist() == [1.5, 2.0]


def test_a_clash_of_the_best_has_no_regret_and_any_other_duel_has_some():
    assert duel_regret(REWARDS, np.array([[1, 1], [0, 1]])).tolist() == [0.0, 1.5]


def test_the_order_of_a_duel_does_not_matter():
    pairs = np.array([[0, 1], [2, 1]])
    assert duel_regret(REWARDS, pairs).tolist() == duel_regret(REWARDS, pairs[:, ::-1]).tolist()


def test_a_recommendations_regret_by_hand():
    assert simple_regret(REWARDS, np.array([1, 1])).tolist() == [0.0, 3.0]


def test_a_prompt_with_one_candidate_has_no_regret():
    one = np.array([[7.0]])
    assert duel_regret(one, np.array([[0, 0]])).tolist() == simple_regret(one, np.array([0])).tolist() == [0.0]


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), min_size=1, max_size=5).map(np.array))
def test_regret_is_never_negative(rewards):
    for first in range(4):
        for second in range(4):
            assert (duel_regret(rewards, np.tile([first, second], (len(rewards), 1))) >= 0).all()
        assert (simple_regret(rewards, np.full(len(rewards), first)) >= 0).all()


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"pairs has shape \(1, 2\), expected \(2, 2\)"):
        duel_regret(REWARDS, np.array([[0, 1]]))
    with pytest.raises(ValueError, match=r"picked has shape \(2, 1\), expected \(2,\)"):
        simple_regret(REWARDS, np.array([[0], [1]]))
