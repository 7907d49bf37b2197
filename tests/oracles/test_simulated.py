import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.oracles.bradley_terry import win_probability
from oatflow.components.oracles.oracle import Answer
from oatflow.components.oracles.simulated import SimulatedOracle
from oatflow.components.records.records import Duel

REWARDS = st.floats(-1, 1)
TEMPERATURES = st.floats(1e-6, 10)


def duel(first, second):
    return Duel("d", "p", "?", first, second, 0, 1, False)


def test_the_probability_is_the_sigmoid_of_the_margin_over_the_temperature():
    # sigmoid(0.75), in Oat's golden data for scores 1.0 and 0.25 at temperature 1.
    assert win_probability(1.0, 0.25, 1.0) == pytest.approx(0.6791787148, abs=1e-7)
    assert win_probability(-2.0, 1.0, 1.0) == pytest.approx(0.04742587358, abs=1e-7)
    assert win_probability(0.1, 0.0, 0.05) == pytest.approx(1 / (1 + math.exp(-2)))


@given(REWARDS, REWARDS, TEMPERATURES)
def test_swapping_the_responses_swaps_the_odds(first, second, temperature):
    forth, back = win_probability(first, second, temperature), win_probability(second, first, temperature)
    assert 0 <= forth <= 1
    assert forth + back == pytest.approx(1)


@given(REWARDS, TEMPERATURES)
def test_equal_rewards_are_an_even_chance(reward, temperature):
    assert win_probability(reward, reward, temperature) == 0.5


def test_the_coldest_temperature_overflows_nowhere():
    assert win_probability(1.0, -1.0, 1e-300) == 1.0
    assert win_probability(-1.0, 1.0, 1e-300) == 0.0


def test_vader_prefers_the_warmer_words_and_tells_the_rewards():
    (answer,) = SimulatedOracle("vader", 0.1).compare_duels([duel("The soup was great!", "The soup was awful.")])
    # VADER's own compound scores of the two sentences.
    assert answer.first_reward == pytest.approx(0.6588)
    assert answer.second_reward == pytest.approx(-0.4588)
    assert answer.first_wins == pytest.approx(1 / (1 + math.exp(-(0.6588 + 0.4588) / 0.1)))


def test_an_empty_answer_has_no_sentiment():
    assert SimulatedOracle("vader", 0.1).compare_duels([duel("", "")]) == [Answer(0.5, 0.0, 0.0)]


def test_length_counts_words():
    (answer,) = SimulatedOracle("length", 0.01).compare_duels([duel("one two three", "one")])
    assert (answer.first_reward, answer.second_reward) == (0.03, 0.01)
    assert answer.first_wins == pytest.approx(1 / (1 + math.exp(-2)))


def test_the_identity_names_everything_that_an_answer_depends_on():
    assert SimulatedOracle("vader", 0.1).identity == "simulated/vader-3.3.2/T=0.1"
    assert SimulatedOracle("length", 2).identity == "simulated/length/T=2"


def test_no_duels_have_no_answers():
    assert SimulatedOracle("length", 1).compare_duels([]) == []
