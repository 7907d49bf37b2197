"""What is paid for is kept: failures in the middle of a batch, answers that got lost, money that runs out."""

from dataclasses import replace

import pytest
from oatflow.components.errors import LedgerError, OracleError
from oatflow.components.ledger.step import Step
from oatflow.components.oracles import registry
from oatflow.components.oracles.oracle import Answer, OracleFailed, SpendingLimit
from oatflow.components.oracles.spending import Spending

from .conftest import duel


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


class PaidOracle:
    """Answers for money, one duel after the other, and counts how often it was asked about each."""

    identity = "paid"
    known_reward = None
    paid = True

    def __init__(self, limit=None, price=1.0):
        self.spending, self.price = Spending(limit), price
        self.asked, self.say = [], lambda duel: Answer(0.9)

    def check_ready(self):
        pass

    def compare_duels(self, duels):
        answers = {}
        for row in duels:
            if not self.spending.hold_money(self.price):
                raise SpendingLimit("spent", answers)
            self.asked.append(row.duel_id)
            try:
                answers[row.duel_id] = replace(self.say(row), cost=self.price, requests=1)
            except ConnectionError as error:
                raise OracleFailed(str(error), answers) from error
            self.spending.settle_cost(self.price, self.price)
        return list(answers.values())


@pytest.fixture
def paid(monkeypatch):
    """Put an oracle that costs money in the place of the simulated one; every step opens the same one."""

    def install(limit=None):
        paid = PaidOracle(limit)

        def open_(settings, circumstances):
            paid.spending = Spending(limit)
            return paid

        monkeypatch.setitem(registry.ORACLES, "simulated", replace(registry.ORACLES["simulated"], open=open_))
        return paid

    return install


DUELS = [duel(number) for number in range(10)]
NAMES = [row.duel_id for row in DUELS]


def test_what_was_answered_before_the_oracle_failed_is_never_asked_again(begin, paid):
    asked = paid()
    asked.say = lambda row: (_ for _ in ()).throw(ConnectionError("gone")) if row.duel_id == NAMES[5] else Answer(0.9)
    round_ = begin(DUELS, oracle_batch_size=8)
    with pytest.raises(OracleFailed, match="gone"):
        round_.label()
    asked.say = lambda row: Answer(0.2)
    done = round_.label()
    assert sorted(asked.asked) == sorted([*NAMES, NAMES[5]])  # the one that failed got no answer, and so was not paid
    assert [row.first_wins for row in round_.preferences()] == [0.9] * 5 + [0.2] * 5
    assert done.counts["queries"] == 10 and "lost" not in done.counts


@pytest.mark.parametrize("answered", [False, True])
def test_an_answer_that_was_perhaps_paid_and_not_kept_is_lost_and_not_asked_again(begin, paid, monkeypatch, answered):
    asked = paid()
    round_ = begin(DUELS, oracle_batch_size=4)
    write, parts = Step.write_output, []

    def dying(step, name, data):
        if name.startswith("receipts-"):
            parts.append(name)
            if len(parts) == 2:
                raise Killed
        return write(step, name, data)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if answered:
            patch.setattr(Step, "write_output", dying)
        else:
            asked.say = lambda row: (_ for _ in ()).throw(Killed) if row.duel_id == NAMES[4] else Answer(0.9)
        round_.label()
    asked.say = lambda row: Answer(0.9)
    done = round_.label()
    assert len(asked.asked) == len(set(asked.asked))
    assert done.counts["queries"] == 10 and done.counts["lost"] == 4
    told = [(row.first_wins, row.chosen, row.lost) for row in round_.preferences()]
    assert told == [(0.9, "first", None)] * 4 + [(None, None, True)] * 4 + [(0.9, "first", None)] * 2


def test_an_oracle_that_is_free_is_simply_asked_again(begin, duels, monkeypatch):
    round_ = begin(duels, oracle_batch_size=4)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Step, "write_output", lambda *_: (_ for _ in ()).throw(Killed))
        round_.label()
    assert "lost" not in round_.label().counts
    assert all(row.first_wins is not None or row.clash for row in round_.preferences())


def test_an_unreadable_answer_is_a_query_and_no_label(begin, paid):
    asked = paid()
    asked.say = lambda row: Answer(None, raw="I like both") if row.duel_id == NAMES[3] else Answer(0.9)
    round_ = begin(DUELS, unreadable_limit=0.1)
    done = round_.label()
    assert (done.counts["queries"], done.counts["unreadable"]) == (10, 1)
    row = round_.preferences()[3]
    assert (row.first_wins, row.chosen, row.unreadable, row.clash) == (None, None, True, False)
    assert [row.raw for row in round_.receipts()].count("I like both") == 1


def test_too_many_unreadable_answers_stop_the_step_and_a_higher_limit_carries_on(begin, paid):
    asked = paid()
    asked.say = lambda row: Answer(None, raw="Sorry, no.") if row.duel_id in NAMES[:2] else Answer(0.9)
    round_ = begin(DUELS, oracle_batch_size=5, unreadable_limit=0.1)
    said = r"2 of 10 answers cannot be read as a verdict, more than unreadable_limit=0.1 allows; .*'Sorry, no.'"
    with pytest.raises(OracleError, match=said):
        round_.label()
    with pytest.raises(OracleError, match=said):
        round_.label()
    assert asked.asked == NAMES[:5]
    round_.ledger.experiment.settings["labeling"]["unreadable_limit"] = 0.2
    round_.label()
    assert asked.asked == NAMES


def test_an_undecided_answer_is_recorded_and_teaches_nothing(begin, paid):
    paid().say = lambda row: Answer(0.5, undecided=True)
    round_ = begin(DUELS[:1], bt_sample=True)
    assert round_.label().counts["undecided"] == 1
    (row,) = round_.preferences()
    assert (row.first_wins, row.chosen, row.undecided) == (0.5, None, True)


def test_money_that_runs_out_leaves_the_other_duels_without_a_label(begin, paid):
    asked = paid(limit=6.5)
    round_ = begin(DUELS, oracle_batch_size=4)
    done = round_.label()
    assert asked.asked == NAMES[:6]
    assert done.facts["cost"] == 6.0
    assert (done.counts["queries"], done.counts["unpaid"]) == (6, 4)
    assert [row.chosen for row in round_.preferences()] == ["first"] * 6 + [None] * 4
    assert [row.oracle for row in round_.preferences()][6:] == [""] * 4


def test_what_a_killed_attempt_spent_counts(begin, paid, monkeypatch):
    asked = paid(limit=6.5)
    round_ = begin(DUELS, oracle_batch_size=4)
    write = Step.write_output
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(
            Step, "write_output",
            lambda step, name, data: (_ for _ in ()).throw(Killed) if name == "preferences-0000.parquet"
            else write(step, name, data),
        )  # fmt: skip
        round_.label()
    assert len(asked.asked) == 4
    round_.label()
    assert len(asked.asked) == 6


def test_no_more_than_the_limit_is_ever_held():
    spending = Spending(1.0)
    assert spending.hold_money(0.6) and not spending.hold_money(0.6)
    spending.settle_cost(0.6, 0.1)
    assert spending.spent == pytest.approx(0.1)
    assert spending.hold_money(0.6) and not spending.hold_money(0.4)
    assert Spending(None).hold_money(1e9)


def test_a_higher_limit_carries_the_experiment_on(begin, paid):
    paid(limit=6.5)
    done = begin(DUELS, oracle_batch_size=4).label()
    assert done.facts["spending_limit"] == 6.5


def test_of_two_attempts_at_once_the_one_that_was_overtaken_stops_before_it_pays_twice(begin, paid):
    """The other one starts while the first waits for an answer: it takes that batch for lost, and asks on."""
    asked = paid()
    round_ = begin(DUELS, oracle_batch_size=4)

    def slowly(row):
        if row.duel_id == NAMES[2]:
            asked.say = lambda row: Answer(0.9)
            round_.label()
        return Answer(0.9)

    asked.say = slowly
    with pytest.raises(LedgerError, match="another attempt of this step is asking the oracle"):
        round_.label()
    assert sorted(asked.asked) == sorted(NAMES)
    assert round_.ledger.find_done(0, "labeling").counts["lost"] == 4


def test_an_oracle_that_changed_between_two_attempts_is_not_mixed_with_the_first(begin, paid):
    asked = paid()
    asked.say = lambda row: (_ for _ in ()).throw(ConnectionError("gone")) if row.duel_id == NAMES[5] else Answer(0.9)
    round_ = begin(DUELS)
    with pytest.raises(OracleFailed):
        round_.label()
    asked.identity = "another"
    with pytest.raises(OracleError, match="oracle another: this step's first answers are by paid"):
        round_.label()
    asked.identity = "paid"
    asked.say = lambda row: Answer(0.9)
    assert round_.label().counts["queries"] == 10


def test_an_answer_that_cannot_be_believed_costs_no_other(begin, paid):
    asked = paid()
    asked.say = lambda row: Answer(1.5 if row.duel_id == NAMES[3] else 0.9)
    round_ = begin(DUELS)
    with pytest.raises(OracleError, match=NAMES[3]):
        round_.label()
    asked.say = lambda row: Answer(0.9)
    round_.label()
    assert sorted(asked.asked) == sorted([*NAMES, NAMES[3]])
