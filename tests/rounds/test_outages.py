"""The store goes away in the middle of a step: the step waits, goes on, and the ledger ends as if nothing had happened.

Time is scaled: a lease of 0.4 s, an outage of 1.5 s, pauses of a tenth of a second. `test_outages_in_true_time` has the
true times, and a real server.
"""

import time
from collections import Counter

import pytest
from oatflow.components.errors import ClaimLost, StoreUnreachable
from oatflow.components.rounds.opening import open_round

from .absent_store import Memory
from .round_by_step import (
    KINDS,
    NEVER_ENDS,
    ORDER,
    OUTAGE,
    SETTINGS,
    STEPS,
    Experiment,
    play_undisturbed,
    scale,
    start_job,
)  # fmt: skip


@pytest.fixture
def asked(monkeypatch, tmp_path):
    return scale(monkeypatch, tmp_path)


@pytest.fixture
def experiment(asked):
    experiment = Experiment(Memory())
    yield experiment
    experiment.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return play_undisturbed(tmp_path_factory.mktemp("undisturbed"))


def cases(steps, *quick):
    """All steps and kinds of outage; all but the `quick` ones are slow."""
    return [
        pytest.param(step, kind, marks=[] if (step, kind) in quick else pytest.mark.slow)
        for step in steps
        for kind in KINDS
    ]


@pytest.mark.parametrize(("outage_in", "kind"), cases(ORDER, ("label", "500")))
def test_a_store_that_is_away_for_several_leases_fails_no_step(experiment, asked, undisturbed, capfd, outage_in, kind):
    for step in ORDER:
        if step == outage_in:
            experiment.leave_in(step, kind)
        experiment.play(step)
    assert experiment.store.outages == 1
    truth, questions = undisturbed
    assert experiment.truth() == truth and len(truth) > 12
    assert sorted(asked()) == questions and set(Counter(questions).values()) == {1}
    assert experiment.ledger.read_head().round == 0
    assert len(list(experiment.ledger.verify_objects())) > 15
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("the store ")]
    assert any("does not answer" in line and "trying again for up to 10 min" in line for line in lines)
    assert any("answers again, after" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["sample", "train"])
def test_a_store_that_is_away_when_a_step_begins_is_waited_for(experiment, undisturbed, step):
    for each in ORDER:
        if each == step:
            experiment.store.leave("refuses", OUTAGE, lambda method, path: True)
        experiment.play(each)
    assert experiment.store.outages == 1
    assert experiment.truth() == undisturbed[0]


@pytest.mark.parametrize(("step", "kind"), cases(STEPS, ("label", "hangs")))
def test_another_run_that_comes_while_the_store_is_away_wins_and_the_old_one_stops(
    experiment, asked, undisturbed, step, kind
):
    before, taken = ORDER[: ORDER.index(step)], []

    def take_over():
        # The other run's pods reach the store by another way.
        assert open_round(f"s3://bucket/experiment?endpoint={experiment.direct.endpoint}", SETTINGS, "another") == 0
        taken.append(time.monotonic())

    for each in before:
        experiment.play(each)
    experiment.leave_in(step, kind, meanwhile=take_over)
    with pytest.raises(ClaimLost, match="held by run 'another'"):
        experiment.play(step)
    late = [entry for entry in experiment.store.log if entry[0] > taken[0] and entry[1] != "GET" and entry[3] < 300]
    assert late == []
    for each in ORDER[ORDER.index(step) :]:
        experiment.play(each, "another")
    assert experiment.ledger.read_head().round == 0
    truth, _ = undisturbed
    # Paid questions whose answers were lost are not asked again, so only labels may be missing then.
    if step != "label":
        assert experiment.truth() == truth
    assert set(Counter(asked()).values()) == {1}


def test_a_store_that_stays_away_fails_the_step_with_one_line_that_says_what_to_do(experiment, monkeypatch):
    monkeypatch.setitem(SETTINGS["ledger"], "store_patience_seconds", 1.0)
    experiment.play("open")
    experiment.leave_in("sample", "500", seconds=4.0)
    with pytest.raises((StoreUnreachable, ClaimLost)) as raised:
        experiment.play("sample")
    told = str(raised.value)
    assert f"no answer from {experiment.store.endpoint} for 1 s (500 InternalError: We encountered" in told
    assert "store_patience_seconds=1 is how long a step waits" in told and "\n" not in told


@pytest.mark.slow
def test_an_orphan_stops_by_itself_although_the_store_was_away(experiment):
    """The step that launched the job is gone; nobody renews the claim once the store is back."""
    experiment.lease = 2.0
    for step in ("open", "sample", "label"):
        experiment.play(step)
    experiment.leave_in("train", "refuses")
    job = start_job(NEVER_ENDS, experiment.uri, "0", "run")
    _, said = job.communicate(timeout=60)
    assert job.returncode and "the step that kept it alive is gone" in said
    assert experiment.store.outages == 1
