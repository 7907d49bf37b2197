import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.errors import OracleError
from oatflow.components.labeling.labels import check_answers, draw_label, pick_likelier
from oatflow.components.oracles.oracle import Answer
from oatflow.components.records.records import Duel
from oatflow.components.seeds import derive

DUELS = [Duel(f"duel-{n}", f"prompt-{n}", "?", "a", "b", 0, 1, False) for n in range(3)]
GOOD = [Answer(0.0), Answer(1.0, 0.25, -0.5), Answer(0.5, 1, 1)]


@pytest.mark.parametrize(("chance", "label"), [(0.0, "second"), (0.5, "second"), (0.5001, "first"), (1.0, "first")])
def test_the_likelier_answer_wins_and_one_half_goes_to_the_second(chance, label):
    assert pick_likelier(chance) == label


@given(st.integers(0, 2**63 - 1))
def test_a_certain_answer_is_never_drawn_the_other_way(seed):
    assert draw_label(1.0, seed) == "first"
    assert draw_label(0.0, seed) == "second"


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.75])
def test_labels_are_drawn_as_often_as_the_probability_says(probability):
    draws = 4000
    first = sum(draw_label(probability, derive(0, 3, f"duel-{n}", "label")) == "first" for n in range(draws))
    deviations = (first - draws * probability) / math.sqrt(draws * probability * (1 - probability))
    assert abs(deviations) < 3


def test_a_larger_probability_never_turns_a_drawn_win_into_a_loss():
    seed = derive(0, 0, "a duel", "label")
    wins = [draw_label(p / 100, seed) == "first" for p in range(101)]
    assert wins == sorted(wins)
    assert not wins[0]
    assert wins[100]


def test_answers_that_can_be_believed_pass():
    assert check_answers(GOOD, DUELS, "o") == GOOD
    assert check_answers([], [], "o") == []


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.01, 1.01, "0.5"])
def test_what_is_not_a_probability_is_an_error_that_names_the_duel(wrong):
    with pytest.raises(OracleError, match=r"oracle o: duel duel-1 \(prompt prompt-1\): first_wins=.* is not a probab"):
        check_answers([GOOD[0], Answer(wrong), GOOD[2]], DUELS, "o")


@pytest.mark.parametrize("wrong", [math.nan, -math.inf, "good"])
def test_a_reward_that_is_no_number_is_an_error(wrong):
    with pytest.raises(OracleError, match=r"duel-2.*second_reward=.* is not a finite number"):
        check_answers([*GOOD[:2], Answer(0.5, 0.0, wrong)], DUELS, "o")


def test_a_missing_answer_is_an_error_that_names_the_first_duel_without_one():
    with pytest.raises(OracleError, match="2 answers to 3 duels; the first without one is duel duel-2"):
        check_answers(GOOD[:2], DUELS, "o")


def test_an_answer_too_many_is_an_error():
    with pytest.raises(OracleError, match=r"3 answers to 2 duels$"):
        check_answers(GOOD, DUELS[:2], "o")
