import json

import pytest
from oatflow.components.errors import SettingsError, WaitingForLabels
from oatflow.components.oracles.registry import open_oracle
from oatflow.components.oracles.settings import HumanSettings
from oatflow.components.people.annotations import Annotation
from oatflow.components.people.human_oracle import HumanOracle
from oatflow.components.records.records import Duel, duel_id


def duel(number):
    texts = f"Question {number}?", "one", "two"
    return Duel(duel_id(*texts), f"prompt-{number}", *texts, 0, 1, False)


def said(row, left=None, **verdicts):
    return [Annotation(row.duel_id, who, verdict, left) for who, verdict in verdicts.items()]


def ask(*verdicts, left=None):
    """What the oracle makes of these verdicts of as many people on one duel."""
    row = duel(0)
    people = {f"person-{number}": verdict for number, verdict in enumerate(verdicts)}
    oracle = HumanOracle(HumanSettings(human_annotators=len(verdicts)), {row.duel_id: said(row, left, **people)})
    (answer,) = oracle.compare_duels([row])
    return answer


@pytest.mark.parametrize(
    ("verdicts", "first_wins"),
    [
        (["first"], 1.0),
        (["second"], 0.0),
        (["first", "first", "second"], 2 / 3),
        (["first", "tie"], 0.75),
        (["second", "tie"], 0.25),
        (["first", "skip"], 1.0),
        (["second", "skip", "skip"], 0.0),
    ],
)
def test_the_probability_is_the_mean_over_those_who_did_not_skip(verdicts, first_wins):
    answer = ask(*verdicts)
    assert answer.first_wins == first_wins
    assert not answer.undecided


@pytest.mark.parametrize("verdicts", [["tie"], ["first", "second"], ["tie", "tie"], ["first", "second", "skip"]])
def test_a_draw_between_people_is_undecided(verdicts):
    answer = ask(*verdicts)
    assert (answer.first_wins, answer.undecided) == (0.5, True)


def test_a_duel_that_everybody_skipped_is_unreadable_and_never_a_tie():
    answer = ask("skip", "skip")
    assert (answer.first_wins, answer.undecided) == (None, False)
    assert json.loads(answer.raw) == {"person-0": "skip", "person-1": "skip"}


def test_who_said_what_is_kept():
    assert json.loads(ask("first", "tie").raw) == {"person-0": "first", "person-1": "tie"}


@pytest.mark.parametrize(
    ("left", "orders", "shown_first_wins"), [("first", "given", 0.75), ("second", "swapped", 0.25), (None, None, None)]
)
def test_what_stood_on_the_left_was_shown_first(left, orders, shown_first_wins):
    answer = ask("first", "tie", left=left)
    assert (answer.orders, answer.shown_first_wins) == (orders, shown_first_wins)


def test_duels_are_answered_in_the_order_in_which_they_are_asked():
    rows = [duel(number) for number in range(3)]
    verdicts = ["first", "second", "tie"]
    answers = {row.duel_id: said(row, ann=verdict) for row, verdict in zip(rows, verdicts, strict=True)}
    oracle = HumanOracle(HumanSettings(), answers)
    assert [answer.first_wins for answer in oracle.compare_duels(rows[::-1])] == [0.5, 0.0, 1.0]
    assert oracle.compare_duels([]) == []


def test_with_too_few_people_it_waits_and_says_how_to_answer():
    rows = [duel(0), duel(1)]
    answers = {row.duel_id: said(row, ann="first") for row in rows}
    answers[rows[1].duel_id] += said(rows[1], ben="first")
    oracle = HumanOracle(HumanSettings(human_annotators=2), answers)
    with pytest.raises(WaitingForLabels, match=rf"1 of 2 duels.*2 people.*{rows[0].duel_id}.*oatflow label"):
        oracle.compare_duels(rows)
    assert oracle.compare_duels(rows[1:])


def test_one_person_who_answers_twice_is_one_person():
    row = duel(0)
    oracle = HumanOracle(HumanSettings(human_annotators=2), {row.duel_id: said(row, ann="first") * 2})
    with pytest.raises(WaitingForLabels):
        oracle.compare_duels([row])


def test_opened_by_its_name_it_knows_no_answers_yet():
    oracle = open_oracle("human", HumanSettings())
    oracle.check_ready()
    assert (oracle.paid, oracle.spending, oracle.known_reward) == (False, None, None)
    with pytest.raises(WaitingForLabels):
        oracle.compare_duels([duel(0)])


def test_its_name_depends_on_the_number_of_people_and_on_what_they_are_asked():
    names = {
        HumanOracle(HumanSettings(human_annotators=people, human_guideline=asked)).identity
        for people in (1, 2)
        for asked in ("Which is better?", "Which is kinder?")
    }
    assert len(names) == 4
    assert HumanOracle(HumanSettings(human_annotators=2)).identity.startswith("human/2 annotators/")


def test_how_long_to_wait_does_not_change_its_name():
    assert HumanOracle(HumanSettings(human_wait_minutes=9)).identity == HumanOracle(HumanSettings()).identity


def test_a_guideline_of_blanks_is_refused():
    with pytest.raises(SettingsError, match="human_guideline"):
        HumanOracle(HumanSettings(human_guideline="  "))
