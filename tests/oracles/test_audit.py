"""Canaries and agreement, by hand, on oracles whose faults are known."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oatflow.components.oracles.audit import (
    CANARIES,
    Account,
    LabelledPair,
    Pair,
    ask_canaries,
    ask_like_people,
    compute_kappa,
    make_canary,
    measure_agreement,
    name_verdict,
)
from oatflow.components.oracles.oracle import Answer, OracleFailed
from oatflow.components.oracles.simulated import SimulatedOracle

PAIRS = [Pair(f"prompt {number}", "a b c " * (number + 1), "a b") for number in range(8)]
READ, EMPTY, SAME, SUM, WINNER, AGAIN, PLACE, ORDERS = range(8)


class Scripted:
    """An oracle that answers as a function says."""

    identity, known_reward, paid, spending = "scripted", None, False, None

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def check_ready(self):
        pass

    def compare_duels(self, duels):
        self.asked += duels
        return [self.answer(duel) for duel in duels]


def audit(answer, pairs=PAIRS):
    account = Account()
    return ask_canaries(Scripted(answer), pairs, account), account


def test_a_sound_oracle_has_nothing_to_be_told():
    found = ask_canaries(SimulatedOracle("length", 0.05), PAIRS, Account())
    assert [finding.fine for finding in found] == [True] * 7 + [None]
    assert [finding.value for finding in found] == [1.0, 1.0, 0.0, pytest.approx(0, abs=1e-9), 1.0, 0.0, 0.5, None]
    assert [finding.n for finding in found] == [40, 8, 8, 8, 8, 8, 16, 0]


def test_each_pair_costs_five_questions_of_which_one_is_a_repetition():
    oracle = Scripted(lambda duel: Answer(0.7))
    account = Account()
    ask_canaries(oracle, PAIRS, account)
    assert len(oracle.asked) == len(account.answers) == len(CANARIES) * len(PAIRS)
    assert Counter(Counter(duel.duel_id for duel in oracle.asked).values()) == {1: 24, 2: 8}


def test_a_pair_given_twice_is_asked_about_once():
    oracle = Scripted(lambda duel: Answer(0.7))
    ask_canaries(oracle, [PAIRS[0], PAIRS[0]], Account())
    assert len(oracle.asked) == 5


def test_an_oracle_that_follows_the_place_is_found_out():
    found, _ = audit(lambda duel: Answer(0.8))
    assert found[EMPTY].value == 0.5
    assert found[SAME].value == pytest.approx(0.3)
    assert found[SUM].value == pytest.approx(0.6)
    assert (found[WINNER].value, found[AGAIN].value) == (0.0, 0.0)
    assert found[PLACE].value == pytest.approx(0.8)
    assert [finding.fine for finding in found] == [True, False, False, False, False, True, False, None]


def test_what_the_oracle_says_of_places_counts_before_the_sides_of_the_duel():
    found, _ = audit(lambda duel: Answer(0.5, shown_first_wins=0.9, consistent=duel.prompt != "prompt 0"))
    assert (found[PLACE].value, found[PLACE].n) == (pytest.approx(0.9), 16)
    assert (found[ORDERS].value, found[ORDERS].n) == (7 / 8, 8)
    assert found[WINNER].value == 1.0


def test_an_oracle_that_prefers_silence_is_found_out():
    found, _ = audit(lambda duel: Answer(0.5 + 0.4 * (len(duel.second) - len(duel.first)) / 100))
    assert found[EMPTY].value == 0.0 and found[EMPTY].fine is False


def test_chance_shows_when_a_question_is_asked_again():
    answers = iter(range(1000))
    found, _ = audit(lambda duel: Answer((next(answers) % 2) / 2 + 0.25))
    assert found[AGAIN].n == 8 and found[AGAIN].value in (0.0, 0.25, 0.5)
    noisy = iter([0.2] * 32 + [0.9] * 8)
    assert audit(lambda duel: Answer(next(noisy)))[0][AGAIN].value == pytest.approx(0.7)


def test_unreadable_answers_are_counted_and_otherwise_left_out():
    found, _ = audit(lambda duel: Answer(None if duel.prompt == "prompt 3" else 0.5, raw="what?"))
    assert (found[READ].value, found[READ].n, found[READ].fine) == (35 / 40, 40, False)
    assert [finding.n for finding in found[1:7]] == [7, 7, 7, 7, 7, 14]


def test_an_oracle_that_cannot_be_read_at_all_is_known_for_nothing_else():
    found, _ = audit(lambda duel: Answer(None))
    assert (found[READ].value, found[READ].fine) == (0.0, False)
    assert all(finding.value is None and finding.n == 0 and finding.fine is None for finding in found[1:])


def test_one_pair_is_enough_and_the_empty_answer_takes_both_sides():
    assert [finding.n for finding in audit(lambda duel: Answer(0.5), PAIRS[:1])[0]] == [5, 1, 1, 1, 1, 1, 2, 0]
    assert make_canary("empty", PAIRS[0], 0).second == make_canary("empty", PAIRS[0], 1).first == ""
    assert make_canary("same", PAIRS[0], 0).clash


def test_what_was_answered_before_a_failure_is_on_the_account():
    def fail(duel):
        raise OracleFailed("down", {"a": Answer(0.5, cost=1.0), "b": Answer(None, cost=2.0)})

    account = Account()
    with pytest.raises(OracleFailed):
        ask_canaries(Scripted(fail), PAIRS, account)
    assert sum(answer.cost for answer in account.answers) == 3.0


# Agreement


def table(counts):
    return [(person, oracle) for (person, oracle), count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(("counts", "kappa"), [
    # p_o = 35/50, p_e = (25 * 30 + 25 * 20) / 2500 = 0.5
    ({("first", "first"): 20, ("first", "second"): 5, ("second", "first"): 10, ("second", "second"): 15}, 0.4),
    # The same p_o = 0.6 by other margins: p_e = 0.54, and 0.46
    ({("first", "first"): 45, ("first", "second"): 15, ("second", "first"): 25, ("second", "second"): 15}, 0.06 / 0.46),
    ({("first", "first"): 25, ("first", "second"): 35, ("second", "first"): 5, ("second", "second"): 35}, 0.14 / 0.54),
    # Three values: p_o = 6/9, p_e = 1/3
    ({("first", "first"): 2, ("second", "second"): 2, ("tie", "tie"): 2, ("first", "second"): 1, ("second", "tie"): 1,
      ("tie", "first"): 1}, 0.5),
    ({("first", "first"): 3, ("second", "second"): 4}, 1.0),
    ({("first", "second"): 2, ("second", "first"): 2}, -1.0),
    ({("first", "first"): 5, ("second", "first"): 5}, 0.0),
    ({("first", "second"): 1}, 0.0),
    ({("first", "first"): 5}, None),
    ({}, None),
])  # fmt: skip
def test_kappa_by_hand(counts, kappa):
    assert compute_kappa(table(counts)) == (kappa if kappa is None else pytest.approx(kappa))


@given(st.lists(st.tuples(*[st.sampled_from(["first", "second", "tie"])] * 2), max_size=30))
def test_kappa_is_symmetric_and_at_most_one(said):
    kappa = compute_kappa(said)
    assert kappa == compute_kappa([(oracle, person) for person, oracle in said])
    assert kappa is None or -1 <= kappa <= 1


def test_agreement_counts_ties_and_leaves_out_what_cannot_be_read():
    said = [("first", "first"), ("first", "second"), ("tie", "first"), ("tie", "tie"), ("second", None)]
    found = measure_agreement(said)
    assert (found.n, found.agreed, found.both_decided, found.decided, found.unreadable) == (4, 2, 2, 1, 1)
    # p_o = 2/4; p_e = (2 * 2 + 0 * 1 + 2 * 1) / 16
    assert found.kappa == pytest.approx((0.5 - 6 / 16) / (10 / 16))
    nothing = measure_agreement([("first", None)])
    assert (nothing.n, nothing.kappa, nothing.unreadable) == (0, None, 1)


def test_an_answer_is_a_verdict_or_a_tie_or_unreadable():
    answers = [Answer(0.51), Answer(0.49), Answer(0.5), Answer(0.9, undecided=True), Answer(None), Answer(1.0)]
    assert [name_verdict(answer) for answer in answers] == ["first", "second", "tie", "tie", None, "first"]


def test_a_pair_that_several_people_labelled_is_asked_once_and_each_label_counts():
    oracle = Scripted(lambda duel: Answer(0.9))
    rows = [LabelledPair(PAIRS[0], label) for label in ("first", "first", "second")]
    found = ask_like_people(oracle, rows, Account())
    assert len(oracle.asked) == 1
    assert (found.n, found.agreed) == (3, 2)
