"""A round whose labels teach nothing stops the run before the next round's money is spent."""

import pytest
from oatflow.components.errors import LabelsInDoubt
from oatflow.components.ledger.claim import release_claim
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.oracles.oracle import Answer
from oatflow.components.oracles.simulated import SimulatedOracle
from oatflow.components.rounds.alarms import stop_in_doubt
from oatflow.components.rounds.opening import NOTHING_TO_DO

from .round_by_step import play_steps
from .test_ending import fill, open_next, settings

DOUBT = "64 of 64 answers name no winner."


@pytest.fixture
def uri(tmp_path):
    return f"file://{tmp_path}/experiment"


@pytest.fixture
def alarmed(uri):
    """An experiment whose first round has ended with an alarm."""
    fill(uri, open_next(uri, settings()), {"queries": 8}, facts={"labeling": {"alarms": [DOUBT]}})
    return uri


def test_a_round_with_an_alarm_is_closed_and_then_its_run_fails_in_one_line(alarmed):
    ledger = Ledger.open(alarmed)
    assert ledger.read_head().round == 0
    with pytest.raises(LabelsInDoubt) as doubt:
        stop_in_doubt(ledger, 0)
    said = str(doubt.value)
    assert doubt.value.exit_code == 1 and "\n" not in said
    assert "round 0" in said and DOUBT in said and "--accepted_alarms 0" in said


@pytest.mark.parametrize("run", ["run", "a scheduled run"])
def test_no_run_opens_the_next_round_until_the_user_accepts_the_alarm(alarmed, run):
    release_claim(Ledger.open(alarmed).store, 0, "run")
    with pytest.raises(LabelsInDoubt, match="accepted_alarms"):
        open_next(alarmed, settings(), run)
    assert Ledger.open(alarmed).find_claim(1) is None
    assert open_next(alarmed, settings(accepted_alarms="0"), run) == 1


def test_an_alarm_of_a_later_round_stops_it_again(alarmed):
    wanted = settings(accepted_alarms="0")
    fill(alarmed, open_next(alarmed, wanted), {"queries": 8}, facts={"labeling": {"alarms": [DOUBT]}})
    with pytest.raises(LabelsInDoubt, match="round 1"):
        stop_in_doubt(Ledger.open(alarmed), 1)
    with pytest.raises(LabelsInDoubt, match="round 1"):
        open_next(alarmed, wanted)


def test_an_accepted_alarm_stops_nothing(uri):
    wanted = settings(accepted_alarms="5")
    fill(uri, open_next(uri, wanted), {"queries": 8}, facts={"labeling": {"alarms": [DOUBT]}})
    stop_in_doubt(Ledger.open(uri), 0)
    assert open_next(uri, wanted) == 1


def test_a_finished_experiment_is_finished_whatever_its_last_labels_were(uri):
    wanted = settings(max_queries="8")
    fill(uri, open_next(uri, wanted), {"queries": 8}, facts={"labeling": {"alarms": [DOUBT]}})
    assert open_next(uri, wanted) == NOTHING_TO_DO


def test_rounds_of_former_versions_have_no_alarm(uri):
    fill(uri, open_next(uri, settings()), {"queries": 8})
    stop_in_doubt(Ledger.open(uri), 0)
    assert open_next(uri, settings()) == 1


@pytest.mark.parametrize(
    ("answer", "cause"),
    [(Answer(0.5, undecided=True), "undecided"), (Answer(None, raw="no idea"), "unreadable")],
    ids=["undecided", "unreadable"],
)
def test_an_oracle_that_decides_nothing_is_found_out_after_its_first_round(uri, monkeypatch, answer, cause):
    monkeypatch.setattr(SimulatedOracle, "compare_duels", lambda self, duels: [answer for _ in duels])
    wanted = settings(unreadable_limit="1")
    play_steps(uri, open_next(uri, wanted), "run")
    with pytest.raises(LabelsInDoubt) as doubt:
        open_next(uri, wanted)
    assert cause in str(doubt.value) and "oatflow audit-oracle --count 16" in str(doubt.value)
