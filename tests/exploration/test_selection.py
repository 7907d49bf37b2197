import pytest
from oatflow.components.exploration.selection import pick_duels
from oatflow.components.exploration.strategies import STRATEGIES, passive
from oatflow.components.records.records import Candidate, Duel, Prompt, duel_id

PROMPTS = [Prompt("p", "How was it?"), Prompt("q", "And then?")]


def candidates(prompt_id, *responses):
    return [Candidate(prompt_id, number, text, (1,), 3, "stop") for number, text in enumerate(responses)]


def test_passive_exploration_takes_the_first_two_however_many_there_are():
    assert [passive(number) for number in (2, 3, 20)] == [(0, 1)] * 3
    assert STRATEGIES["passive"] is passive


def test_one_candidate_cannot_duel():
    with pytest.raises(AssertionError, match="1 candidates cannot duel"):
        passive(1)


def test_each_prompt_gets_one_duel_in_the_order_of_the_candidates():
    drawn = candidates("q", "fine", "bad") + candidates("p", "good", "good", "awful")
    duels = pick_duels(PROMPTS, drawn, passive, swap=lambda prompt_id: False)
    assert duels == [
        Duel(duel_id("And then?", "fine", "bad"), "q", "And then?", "fine", "bad", 0, 1, clash=False),
        Duel(duel_id("How was it?", "good", "good"), "p", "How was it?", "good", "good", 0, 1, clash=True),
    ]


def test_a_swapped_duel_is_named_after_its_own_order():
    (duel,) = pick_duels(PROMPTS, candidates("p", "good", "bad"), passive, swap=lambda prompt_id: prompt_id == "p")
    assert (duel.first, duel.second, duel.first_candidate, duel.second_candidate) == ("bad", "good", 1, 0)
    assert duel.duel_id == duel_id("How was it?", "bad", "good")


def test_the_strategy_chooses_among_all_candidates():
    drawn = candidates("p", "a", "b", "c")
    (duel,) = pick_duels(PROMPTS, drawn, lambda number: (number - 1, 0), swap=lambda prompt_id: False)
    assert (duel.first, duel.second) == ("c", "a")
