"""A judge's bill and its spending limit: what the double bills is on record, and is never above the limit."""

import pytest
from oatflow.components.errors import LedgerError, OracleError
from oatflow.components.labeling.asking import Interview
from oatflow.components.labeling.queries import measure_answers
from oatflow.components.labeling.receipts import Receipts
from oatflow.components.oracles.judge import JudgeOracle
from oatflow.components.oracles.oracle import Circumstances, OracleFailed, SpendingLimit
from oatflow.components.oracles.settings import JudgeSettings
from oatflow.components.oracles.spending import Spending
from oatflow.components.records.keep import Memory, StepInMemory
from oatflow.components.records.tables import JUDGEMENTS, PREFERENCES

from .clock import Time
from .openai_service import KEY, MODEL, openai_service
from .test_judge import make_duel, make_duels

DEAREST = 1500
"""More than one question's highest possible cost, at a price of one for each token."""


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OATFLOW_JUDGE_KEY", KEY)


def open_judge(service, limit=None, **settings):
    """A judge at a price of one for each token, so that costs are tokens; its pauses take no time."""
    defaults = {
        "judge_model": MODEL, "judge_url": service.url, "judge_timeout": 0.3, "judge_input_price": 1e6,
        "judge_output_price": 1e6, "judge_spending_limit": limit, "judge_concurrency": 4,
    }  # fmt: skip
    said = Circumstances(say=lambda line: None)
    return JudgeOracle(JudgeSettings.parse({**defaults, **settings}), said, Time().clock)


def interview(service, limit=None, batch_size=4, lost_limit=1.0, **settings):
    oracle = open_judge(service, limit, **settings)
    return Interview(oracle, batch_size, lambda duel, first_wins: "first", 1.0, lost_limit)


def ask(service, keep, duels, table=PREFERENCES, **how):
    return interview(service, **how).collect_preferences(keep, table, duels, {}, lambda done: None)


def cost_on_record(asked):
    return measure_answers([*asked.receipts, *asked.unanswered])["cost"]


class DyingKeep(StepInMemory):
    """Keeps outputs, and dies when it is to write what the oracle answered to its first batch."""

    has_asked = False

    def write_output(self, name, data):
        if name.startswith("receipts-") and self.has_asked:
            raise Killed
        self.has_asked |= name.startswith("asking-") and b"closed" not in data
        return super().write_output(name, data)


@pytest.fixture
def memory():
    return Memory()


def open_keep(memory, kind=StepInMemory, step="labeling"):
    return kind(memory.outputs, memory.reports, step, 0)


# Requests that fail


@pytest.mark.parametrize("fault", ["silent", "dropped", "slow", "truncated", "malformed"])
def test_a_request_that_may_have_been_answered_counts_as_paid(fault):
    with openai_service(rate=1.0, faults=[fault], hold=0.6) as service:
        judge = open_judge(service, judge_tries=1, judge_patience=0.0)
        (duel,) = make_duels(1)
        with pytest.raises(OracleFailed) as failed:
            judge.compare_duels([duel])
        assert judge.spending.spent >= service.billed_tokens > 0
    answer = failed.value.answers[duel.duel_id]
    assert (answer.unanswered, answer.lost, answer.cost) == (True, False, judge.spending.spent)


@pytest.mark.parametrize("status", [408, 502, 504, 524])
def test_a_gateway_that_gave_up_does_not_say_that_nothing_is_billed(status):
    with openai_service() as service:
        judge = open_judge(service, judge_tries=1, judge_orders="one")
        service.first_replies = [(status, {}, b"{}")]
        judge.compare_duels([make_duel("warm", "cold")])
        assert judge.spending.spent > 2 * service.billed_tokens


@pytest.mark.parametrize("status", [409, 429, 500, 503, 529])
def test_an_endpoint_that_says_it_did_not_answer_bills_nothing(status):
    with openai_service() as service:
        judge = open_judge(service, judge_orders="one")
        service.first_replies = [(status, {}, b"{}")] * 3
        (answer,) = judge.compare_duels([make_duel("warm", "cold")])
        assert judge.spending.spent == answer.cost == service.billed_tokens


def test_an_endpoint_that_cannot_be_reached_bills_nothing():
    with openai_service() as service:
        pass
    judge = open_judge(service, judge_tries=1, judge_patience=0.0)
    with pytest.raises(OracleFailed) as failed:
        judge.compare_duels(make_duels(1))
    assert judge.spending.spent == 0 and failed.value.answers == {}


def test_the_cost_of_failed_tries_is_in_the_receipt_of_the_duel():
    with openai_service(rate=0.4, seed=5, faults=["malformed"]) as service:
        answers = open_judge(service).compare_duels(make_duels(20))
        assert sum(answer.cost for answer in answers) >= service.billed_tokens
        assert service.injected.total() > 5


@pytest.mark.parametrize("seed", range(4))
def test_the_limit_holds_whatever_the_endpoint_does(seed):
    with openai_service(rate=0.6, seed=seed, hold=0.6) as service:
        judge = open_judge(service, limit=20 * DEAREST)
        with pytest.raises(SpendingLimit):
            judge.compare_duels(make_duels(80))
        assert 0 < service.billed_tokens <= judge.spending.spent <= 20 * DEAREST


def test_an_endpoint_that_bills_more_than_was_thought_possible_is_asked_less():
    with openai_service() as service:
        service.extra_tokens = 10_000  # of instructions that only the endpoint knows
        judge = open_judge(service, limit=100_000, judge_concurrency=1)
        with pytest.raises(SpendingLimit):
            judge.compare_duels(make_duels(80))
        assert 80_000 < service.billed_tokens <= 100_000


# Processes that are killed


@pytest.mark.parametrize("table", [PREFERENCES, JUDGEMENTS])
def test_what_killed_processes_have_paid_is_on_record_and_within_the_limit(memory, table):
    duels, limit = make_duels(60), 40 * DEAREST
    with openai_service() as service:
        for _ in range(4):
            with pytest.raises(Killed):
                ask(service, open_keep(memory, DyingKeep, table.step), duels, table, limit=limit)
        asked = ask(service, open_keep(memory, step=table.step), duels, table, limit=limit)
        assert sum(row.lost for row in asked.receipts) == 16
        assert service.billed_tokens <= cost_on_record(asked) <= limit
        assert any(not row.oracle for row in asked.preferences), "the limit has left some without an answer"


def test_a_killed_process_whose_batch_became_dearer_than_thought_is_counted(memory):
    """So many tries failed that they cost more than the whole batch was to cost at most."""
    duels = make_duels(4)
    with openai_service(rate=0.9, seed=1, faults=["malformed"]) as service:
        with pytest.raises(Killed):
            ask(service, open_keep(memory, DyingKeep), duels)
        assert sum(name.startswith("asking-") for _, _, name in memory.outputs) > 1
        asked = ask(service, open_keep(memory), duels)
        assert cost_on_record(asked) >= service.billed_tokens > 8 * DEAREST


def test_an_attempt_that_still_lives_spends_no_more_than_the_next_attempt_has_counted(memory):
    """Both belong to one run, whose claim both hold."""
    spending, duels = Spending(None, lambda duel: 1.0), make_duels(4)
    Receipts(open_keep(memory), "preferences", "paid").note_asked(duels, spending)
    assert spending.hold_money(4.0)
    assert Receipts(open_keep(memory), "preferences", "paid").cost == 4.0
    with pytest.raises(LedgerError, match="another attempt of this step is asking the oracle"):
        spending.hold_money(1.0)
    assert Receipts(open_keep(memory), "preferences", "paid").cost == 4.0


def test_what_an_attempt_has_noted_is_counted_if_the_next_one_dies_while_it_adopts_it(memory):
    spending, duels = Spending(None, lambda duel: 1.0), make_duels(4)
    Receipts(open_keep(memory), "preferences", "paid").note_asked(duels, spending)
    spending.hold_money(6.0)
    dying = open_keep(memory, DyingKeep)
    dying.has_asked = True
    with pytest.raises(Killed):
        Receipts(dying, "preferences", "paid")
    assert Receipts(open_keep(memory), "preferences", "paid").cost == 8.0


def test_a_process_that_is_killed_at_its_limit_is_charged_no_more_than_the_limit(memory):
    duels, limit = make_duels(8), 5 * DEAREST
    with openai_service() as service:
        with pytest.raises(Killed):
            ask(service, open_keep(memory, DyingKeep), duels, limit=limit, batch_size=8)
        asked = ask(service, open_keep(memory), duels, limit=limit, batch_size=8)
        assert cost_on_record(asked) == pytest.approx(limit) and service.billed_tokens <= limit


def test_a_duel_without_an_answer_is_asked_again_and_both_its_costs_are_on_record(memory):
    duels = make_duels(4)
    with openai_service(rate=1.0, faults=["malformed"]) as service:
        with pytest.raises(OracleFailed):
            ask(service, open_keep(memory), duels, judge_tries=2, judge_patience=0.0)
        service.rate = 0.0
        asked = ask(service, open_keep(memory), duels)
        assert all(row.first_wins is not None for row in asked.preferences)
        assert asked.unanswered and len(asked.receipts) == 4
        assert cost_on_record(asked) >= service.billed_tokens


def test_too_many_lost_answers_stop_the_step_and_a_higher_limit_carries_on(memory):
    duels = make_duels(10)
    with openai_service() as service:
        for _ in range(2):
            with pytest.raises(Killed):
                ask(service, open_keep(memory, DyingKeep), duels)
        said = r"8 of 10 answers are lost, more than lost_limit=0.5 allows: .* raise lost_limit"
        for _ in range(2):
            before = service.billed_tokens
            with pytest.raises(OracleError, match=said):
                ask(service, open_keep(memory), duels, lost_limit=0.5)
            assert service.billed_tokens == before, "it stops before it pays for more"
        asked = ask(service, open_keep(memory), duels, lost_limit=0.8)
        assert sum(row.first_wins is not None for row in asked.preferences) == 2
