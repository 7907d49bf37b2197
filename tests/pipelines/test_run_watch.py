"""What `submit --wait` prints while a run that a real cluster recorded happens again."""

import copy
import io
import json
from datetime import timedelta
from pathlib import Path

import pytest
from oatflow.components.errors import ClusterError
from oatflow.components.jobs.run_in_cluster import RunInCluster
from oatflow.pipelines.cluster import run_watch
from oatflow.pipelines.cluster import status as cluster_status
from oatflow.pipelines.cluster.kubeflow_client import Cluster
from oatflow.pipelines.cluster.run_steps import read_steps
from oatflow.pipelines.cluster.run_watch import RunGone, RunWatch
from oatflow.pipelines.laptop.display import StepBar
from rich.console import Console

from .kfp_api_double import kfp_api
from .recorded_runs import LOG_OF_TRAIN, TRAIN_POD, as_of, label_at_work, moment, playing, recorded

pytestmark = pytest.mark.slow
GOLDEN = Path(__file__).parents[1] / "golden"
RATE = {"win_rate": 0.714, "low": 0.62, "high": 0.791}
# What the steps of the recorded run measured, by their logs.
MEASURED = {
    "open-round": {"counts": {"prompts": 8}, "queries_spent": 0},
    "sample": {"counts": {"prompts": 8, "generated_tokens": 245}},
    "label": {"counts": {"queries": 8}},
    "train": {"counts": {"pairs": 8}, "facts": {"loss": 0.69}},
    "fit-reward-model": {},
    "evaluate": {"counts": {}, "facts": RATE},
    "close-round": {},
}


@pytest.fixture
def api():
    with kfp_api(multi_user=False) as served:
        yield served


@pytest.fixture
def cluster(api, monkeypatch):
    def refuse(*where):
        raise ClusterError("no kubeconfig")

    for module in (cluster_status, run_watch):
        monkeypatch.setattr(module, "find_run", refuse)
    return Cluster.connect(api.endpoint, None)


@pytest.fixture
def watch(api, cluster):
    """Watch a recorded run from its beginning to its end; returns what was printed."""
    experiment = api.create_experiment({}, {"display_name": "nightly"})["experiment_id"]

    def follow(frames, rounds=1, terminal=False):
        console = Console(file=io.StringIO(), highlight=False, width=150, force_terminal=terminal)
        seen = []
        follower = RunWatch(cluster, StepBar(console), rounds, lambda: seen[-1])
        for answer, when in frames:
            seen.append(when)
            follower.take(cluster.run(api.put_run(experiment, answer)))
        return console.file.getvalue()

    return follow


@pytest.fixture
def logs(api, cluster):
    """Give the steps of a recorded run the logs that they had."""

    def write(run, measured):
        experiment = api.create_experiment({}, {"display_name": "logs"})["experiment_id"]
        for step in read_steps(cluster.run(api.put_run(experiment, run))):
            if step.pod:
                end = {"at": 1.0, "step": step.name, "round": 4, "event": "end", "seconds": 7.0, **measured[step.name]}
                api.logs[step.pod] = f'{{"at": 0.5, "event": "start"}}\n{json.dumps(end)}\nI1130 19:00:00.1 1 x] done\n'

    return write


def golden(name):
    return (GOLDEN / f"wait-{name}.txt").read_text()


def test_a_run_that_succeeds(watch, logs):
    logs(recorded("run-succeeded"), MEASURED)
    assert watch(playing(recorded("run-succeeded"), every=10)) == golden("succeeded")


def test_a_run_whose_logs_cannot_be_read(watch):
    assert watch(playing(recorded("run-succeeded"), every=10)) == golden("succeeded-without-logs")


def test_a_run_that_fails(api, watch):
    api.logs[TRAIN_POD] = LOG_OF_TRAIN
    assert watch(playing(recorded("run-importer-failed"), every=10)) == golden("importer-failed")


def test_a_run_that_is_terminated(watch):
    assert watch(playing(recorded("run-terminated"), every=10)) == golden("terminated")


def test_a_run_that_waits_for_people(watch):
    assert watch(playing(recorded("run-waiting-for-people"), every=10)) == golden("waiting-for-people")


def test_a_win_rate_is_read_from_the_ledger_where_logs_cannot_be_read(watch, monkeypatch):
    run = recorded("run-succeeded")
    monkeypatch.setattr(run_watch, "open_store", lambda uri: uri)
    monkeypatch.setattr(run_watch, "Ledger", lambda store: LedgerOf(run["run_id"]))
    assert "evaluate          done in 1 min 11 s, win rate 71% [62, 79]\n" in watch(
        [(run, moment("2026-11-30T19:42:00Z"))]
    )
    monkeypatch.setattr(run_watch, "Ledger", lambda store: LedgerOf("another run"))
    assert "win rate" not in watch([(run, moment("2026-11-30T19:42:00Z"))])


class LedgerOf:
    """A ledger whose last round a run has evaluated."""

    def __init__(self, run):
        self.run, self.facts, self.round = run, RATE, 4

    def read_head(self):
        return self

    def find_done(self, round_, room):
        return self if (round_, room) == (4, "evaluation") else None


def test_looking_seldom_leaves_no_end_out(watch):
    often = {line for line in watch(playing(recorded("run-succeeded"), every=10)).splitlines() if "done" in line}
    assert {
        line for line in watch(playing(recorded("run-succeeded"), every=100)).splitlines() if "done" in line
    } == often


def test_an_answer_that_is_seen_twice_is_said_once(watch):
    frames = list(playing(recorded("run-succeeded"), every=30))
    assert watch(frame for frame in frames for _ in range(2)) == watch(frames)


def test_rounds_of_one_run_are_told_apart(watch):
    first, now = as_of(recorded("run-running"), moment("2026-11-30T20:15:20Z")), moment("2026-11-30T20:15:20Z")
    assert watch([(first, now)], rounds=3) == "round 1 of 3  open-round        begins\n"


def test_a_second_attempt_is_said(watch):
    first = as_of(recorded("run-succeeded"), moment("2026-11-30T19:37:30Z"))
    second = copy.deepcopy(first)
    for task in second["run_details"]["task_details"]:
        if task["display_name"] == "executor" and task["state"] == "RUNNING":
            # The id of the second attempt of `sample`, as Argo makes it.
            task["child_tasks"].append({"pod_name": "oatflow-alignment-27zqr-2622056187"})
    now = moment("2026-11-30T19:37:30Z")
    assert "sample            begins again, attempt 2" in watch([(first, now), (second, now)])


def test_what_a_step_waits_for_is_said_once_when_it_does_not_begin(api, watch, monkeypatch):
    trouble = "pod x finds no node: Unschedulable: 0/3 nodes have nvidia.com/gpu"
    monkeypatch.setattr(run_watch, "find_run", lambda *where: RunInCluster("kubeflow", True, [], [trouble]))
    now = moment("2026-11-30T20:15:50Z")
    said = watch((recorded("run-running"), now + timedelta(seconds=20 * look)) for look in range(30))
    assert said.count(f"sample            waits: {trouble}") == 1


def test_what_an_oracle_is_waited_for_is_said_when_it_changes(api, watch):
    run, pod = label_at_work()
    now = moment("2026-11-30T19:38:20Z")

    def frames():
        for look in range(30):
            why = f"{8 - look // 10} of 8 duels lack answers of people"
            api.logs[pod] = json.dumps({"at": float(look), "event": "waits", "why": why}) + "\n"
            yield run, now + timedelta(seconds=30 * look)

    lines = [line for line in watch(frames()).splitlines() if "waits" in line]
    assert lines == [f"label             waits: {left} of 8 duels lack answers of people" for left in (8, 7, 6)]


def test_a_run_whose_workflow_goes_ends_the_wait(watch, monkeypatch):
    answers = [RunInCluster("kubeflow", True), RunInCluster("kubeflow", False)]
    monkeypatch.setattr(run_watch, "find_run", lambda *where: answers[0] if len(answers) == 1 else answers.pop(0))
    run, now = recorded("run-whose-workflow-is-gone"), moment("2026-11-30T19:46:40Z")
    with pytest.raises(RunGone, match="its workflow no longer exists in namespace kubeflow"):
        watch((run, now + timedelta(minutes=look)) for look in range(20))


def test_a_cluster_that_never_had_the_run_ends_no_wait(watch, monkeypatch):
    monkeypatch.setattr(run_watch, "find_run", lambda *where: RunInCluster("kubeflow", False))
    run, now = recorded("run-whose-workflow-is-gone"), moment("2026-11-30T19:46:40Z")
    assert "sample            done in 1 min 03 s" in watch((run, now + timedelta(minutes=look)) for look in range(20))


def test_a_terminal_has_a_bar_below_the_lines():
    console = Console(file=io.StringIO(), highlight=False, width=150, force_terminal=True)
    began = moment("2026-11-30T19:37:00Z")
    with StepBar(console, lambda: began.timestamp() + 75) as bar:
        bar.update(2, 7, [("label running", began)])
        bar.print_line("sample            done in 1 min 07 s")
    shown = console.file.getvalue()
    assert "2/7 steps, 0 s   label running for 1 min 15 s" in shown and "sample            done in 1 min 07 s" in shown
