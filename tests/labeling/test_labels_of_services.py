"""Ten thousand duels, services that fail on purpose, and a ledger in which each duel is labelled exactly once."""

from collections import Counter

import pytest
from oatflow.components.oracles.oracle import OracleFailed
from oatflow.components.records.records import Duel, duel_id

from ..oracles.faulty_service import faulty_service, right_answer
from ..oracles.openai_service import KEY, MODEL, openai_service, prefers

pytestmark = pytest.mark.slow
DUELS = 10_000


def duels(number):
    for each in range(number):
        texts = (f"Question {each}?", f"first {each}", f"second {each}")
        yield Duel(duel_id(*texts), f"prompt-{each}", *texts, 0, 1, False)


def begin_with(begin, service, number, **remote):
    """Begin an experiment whose round has so many duels, all asked of the service."""
    rows = list(duels(number))
    round_ = begin(rows, queries_left=number, preference_oracle="remote", oracle_batch_size=1000)
    round_.ledger.experiment.settings["remote"] = {"remote_url": service.url, "remote_timeout": 2.0, **remote}
    return rows, round_


def test_every_duel_is_labelled_once_whatever_the_service_does(begin):
    with faulty_service(rate=0.05, seed=3) as service:
        rows, round_ = begin_with(begin, service, DUELS, remote_concurrency=16)
        done = round_.label()
    preferences = round_.preferences()
    assert [row.duel_id for row in preferences] == [row.duel_id for row in rows]
    assert all(
        row.first_wins == right_answer(duel.prompt, duel.first, duel.second)
        for row, duel in zip(preferences, rows, strict=True)
    )
    assert set(service.answered.values()) == {1} and len(service.answered) == DUELS
    assert Counter(row.duel_id for row in round_.receipts()) == service.answered
    assert done.counts["queries"] == DUELS
    assert done.counts["retried"] == sum(service.injected.values()) > 0


def test_every_duel_is_judged_once_whatever_the_endpoint_does(begin, monkeypatch):
    monkeypatch.setenv("OATFLOW_JUDGE_KEY", KEY)
    rows = list(duels(DUELS))
    round_ = begin(rows, queries_left=DUELS, preference_oracle="judge", oracle_batch_size=1000)
    with openai_service(rate=0.05, seed=7, hold=3) as service:
        round_.ledger.experiment.settings["judge"] = {
            "judge_model": MODEL, "judge_url": service.url, "judge_orders": "one", "judge_concurrency": 16,
            "judge_timeout": 2.0,
        }  # fmt: skip
        done = round_.label()
    preferences = round_.preferences()
    assert [row.duel_id for row in preferences] == [row.duel_id for row in rows]
    expected = [prefers(duel.first, duel.second) for duel in rows]
    assert [row.first_wins for row in preferences] == pytest.approx(expected)
    assert Counter(row.duel_id for row in round_.receipts()) == Counter(row.duel_id for row in rows)
    # On a machine that stalls for seconds a good reply comes too late; that try failed, too.
    late = done.counts["retried"] - service.injected.total()
    assert len(service.answered) == DUELS and service.answered.total() == DUELS + late
    assert service.injected.total() > 400
    assert {row.orders for row in preferences} == {"given", "swapped"}


def test_a_service_that_is_gone_for_good_stops_the_step_and_the_labels_so_far_are_kept(begin):
    with faulty_service(rate=0.0, seed=3) as service:
        rows, round_ = begin_with(begin, service, 3000, remote_concurrency=4, remote_tries=2, remote_patience=0.5)
        service.down = lambda: sum(service.answered.values()) >= 1500
        with pytest.raises(OracleFailed, match=r"remote"):
            round_.label()
        assert len(round_.objects()) == 1, "one whole batch became preferences"
        before = dict(service.answered)
        service.down = lambda: False
        round_.label()
    assert set(service.answered.values()) == {1} and len(service.answered) == 3000
    assert len(before) >= 1500
    assert [row.duel_id for row in round_.preferences()] == [row.duel_id for row in rows]
