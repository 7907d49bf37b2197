"""Pauses, the circuit breaker, and several questions at a time; no test waits for a real clock."""

import json
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from oatflow.components.errors import OracleError
from oatflow.components.oracles.concurrent import ask_all
from oatflow.components.oracles.oracle import Answer, OracleFailed, SpendingLimit
from oatflow.components.oracles.patience import Breaker, GaveUp, Pauses, TryAgain

from .clock import Time

OAT = json.loads((Path(__file__).parents[1] / "golden" / "oat_oracles.json").read_text())["oracles"]


class Service:
    """Fails while `down` says so."""

    def __init__(self, down, wish=None):
        self.down, self.wish, self.asked = down, wish, 0

    def __call__(self):
        self.asked += 1
        if self.down():
            raise TryAgain("503 Service Unavailable", self.wish)
        return "answer"


def breaker(time, said, tries=3, patience=600.0, pauses=None):
    return Breaker("The service", tries, patience, said.append, pauses or Pauses(chance=random.Random(1)), time.clock)


def test_oats_pauses_are_oats_and_so_is_when_it_gives_up():
    time, service = Time(), Service(lambda: True)
    with pytest.raises(GaveUp):
        breaker(time, [], tries=10, patience=0, pauses=Pauses("oat")).ask(service)
    # Ten tries, and a pause after each, also after the last; the golden numbers are rounded.
    assert service.asked == 10
    assert time.slept == pytest.approx(OAT["remote_failure"]["sleeps"], abs=1e-6)
    assert sum(time.slept) == pytest.approx(OAT["remote_failure"]["total_sleep"], abs=1e-5)


def test_pauses_double_and_are_shortened_by_up_to_half():
    pauses = Pauses(chance=random.Random(7))
    for failures, longest in [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 30), (50, 30), (5000, 30)]:
        drawn = [pauses.after(failures) for _ in range(200)]
        assert longest / 2 <= min(drawn) < longest * 0.52
        assert longest * 0.98 < max(drawn) <= longest


@pytest.mark.parametrize("kind", ["jitter", "oat"])
def test_a_service_that_wishes_a_pause_gets_it_up_to_a_minute(kind):
    pauses = Pauses(kind)
    assert pauses.after(1, 20.0) == 20
    assert pauses.after(1, 3600.0) == 60
    assert pauses.after(40, 1.0) > 10
    assert pauses.after(1, 0.0) <= 1


def test_no_pause_of_oats_passes_half_a_minute():
    assert Pauses("oat").after(13) == pytest.approx(1.3**12)
    assert Pauses("oat").after(14) == 30
    assert Pauses("oat").after(10_000) == 30


def test_a_failure_now_and_then_is_tried_again_and_counted():
    time, said = Time(), []
    failures = iter([True, True, False, True, False, False])
    service = Service(lambda: next(failures))
    patient = breaker(time, said)
    assert [patient.ask(service) for _ in range(3)] == [("answer", 2), ("answer", 1), ("answer", 0)]
    assert len(time.slept) == 3
    assert said == []


def test_an_outage_of_ten_minutes_is_waited_for_and_told():
    time, said = Time(), []
    service = Service(lambda: time.now < 600)
    answer, failed = breaker(time, said, patience=3600).ask(service)
    assert answer == "answer"
    assert failed == service.asked - 1
    assert 600 <= time.now < 630
    # At least every half minute, and not much more often.
    assert 20 < service.asked < 50
    down, up = said
    assert down.startswith("The service does not answer since ")
    assert down.endswith(
        " (503 Service Unavailable); asking again every 30 s, for at most 60 min. What was answered is kept."
    )
    assert up == "The service answers again, after 10 min."


def test_who_is_down_for_good_is_given_up_after_the_patience():
    time, said = Time(), []
    with pytest.raises(GaveUp, match=r"^The service has not answered for 10 min \(503 Service Unavailable\)$"):
        breaker(time, said).ask(Service(lambda: True))
    assert 600 <= time.now < 640
    assert len(said) == 1


def test_after_giving_up_a_later_question_starts_afresh():
    time, down = Time(), [True]
    patient = breaker(time, [])
    with pytest.raises(GaveUp):
        patient.ask(Service(lambda: down[0]))
    down[0] = False
    assert patient.ask(Service(lambda: down[0])) == ("answer", 0)


def test_what_will_not_pass_is_not_tried_again():
    time = Time()

    def refuse():
        raise OracleError("no such token")

    with pytest.raises(OracleError, match="no such token"):
        breaker(time, []).ask(refuse)
    assert time.slept == []


def in_threads(number, work):
    results = [None] * number

    def run(which):
        try:
            results[which] = work(which)
        except Exception as error:
            results[which] = error

    threads = [threading.Thread(target=run, args=(which,)) for which in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


def test_while_the_service_is_down_one_asks_and_the_others_wait():
    time, said, all_ask = Time(), [], threading.Barrier(16)
    patient = breaker(time, said, patience=3600)

    def work(which):
        first = iter([True])

        def attempt():
            if next(first, False):
                all_ask.wait(120)
            if time.now < 600:
                raise TryAgain("refused")
            return "answer"

        return patient.ask(attempt)

    results = in_threads(16, work)
    assert {answer for answer, _ in results} == {"answer"}
    # Each alone would ask some 30 times; together they ask as often, after the tries that found it out.
    assert sum(failed for _, failed in results) < 16 * 3 + 50
    assert len(said) == 2
    assert "answers again" in said[1]


def test_when_the_patience_is_over_all_give_up_and_none_waits_for_ever():
    time, said, all_ask = Time(), [], threading.Barrier(16)
    patient = breaker(time, said)

    def work(which):
        first = iter([True])
        return patient.ask(Service(lambda: all_ask.wait(120) >= 0 if next(first, False) else True))

    results = in_threads(16, work)
    assert all(isinstance(result, GaveUp) for result in results)
    assert len({str(result) for result in results}) == 1
    assert len(said) == 1


def test_a_question_that_fails_for_ever_holds_up_nobody_else():
    time, said = Time(), []
    patient = breaker(time, said)

    def work(which):
        return [patient.ask(Service(lambda: which == 0)) for _ in range(20)]

    results = in_threads(4, work)
    assert isinstance(results[0], GaveUp)
    assert results[1:] == [[("answer", 0)] * 20] * 3


def test_a_prober_that_ends_with_an_error_is_succeeded_by_another():
    time, said = Time(), []
    patient = breaker(time, said, tries=1)
    turn = iter(["down", "down", "refused", "refused", "up", "up", "up", "up"])

    def attempt():
        state = next(turn)
        if state == "down":
            raise TryAgain("down")
        if state == "refused":
            raise OracleError("refused")
        return "answer"

    results = in_threads(4, lambda which: patient.ask(attempt))
    assert sorted(type(result).__name__ for result in results) == ["OracleError", "OracleError", "tuple", "tuple"]


@pytest.mark.parametrize("workers", [1, 3, 50])
@pytest.mark.parametrize("number", [0, 1, 20])
def test_all_questions_are_asked_so_many_at_a_time(number, workers):
    lock, asking, most = threading.Lock(), 0, 0

    def ask(question):
        nonlocal asking, most
        with lock:
            asking += 1
            most = max(most, asking)
        with lock:
            asking -= 1
        return {f"d{question}": Answer(question / 100)}

    answers = ask_all(range(number), ask, workers)
    assert answers == {f"d{question}": Answer(question / 100) for question in range(number)}
    assert most <= workers


def test_a_failure_keeps_what_was_answered_and_begins_nothing_new():
    begun = []
    in_flight, failed = threading.Event(), threading.Event()

    def ask(question):
        begun.append(question)
        if question == 0:
            in_flight.set()
            assert failed.wait(120)
        if question == 3:
            assert in_flight.wait(120)
            threading.Timer(0.05, failed.set).start()
            raise SpendingLimit("the spending is empty", {"half": Answer(0.25)})
        return {f"d{question}": Answer(0.5)}

    with pytest.raises(SpendingLimit, match="the spending is empty") as caught:
        ask_all(range(1000), ask, 2)
    # Question 0 was in flight, and was awaited.
    assert {"d0", "d1", "d2", "half"} <= set(caught.value.answers)
    assert len(begun) < 1000


def test_a_plain_error_of_an_oracle_gets_the_answers_so_far():
    def ask(question):
        if question == 2:
            raise OracleError("what is this?")
        return {f"d{question}": Answer(0.5)}

    with pytest.raises(OracleFailed, match=r"^what is this\?$") as caught:
        ask_all(range(9), ask, 1)
    assert set(caught.value.answers) == {"d0", "d1"}


def test_a_mistake_in_the_program_is_told_as_it_is():
    with pytest.raises(ZeroDivisionError):
        ask_all([1, 0], lambda question: {"d": Answer(1 / question)}, 2)


WAITS_FOR_EVER = """
import threading
from oatflow.components.oracles.concurrent import ask_all

def ask(question):
    print("asking", flush=True)
    threading.Event().wait()

ask_all([1, 2, 3], ask, 1)
"""


def test_an_interrupt_ends_the_process_although_a_question_is_on_its_way():
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS_FOR_EVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "asking\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=240)
    assert "KeyboardInterrupt" in error
    assert process.returncode != 0
