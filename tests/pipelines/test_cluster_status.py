"""`oatflow status` on a cluster: how the runs stand, and what a stuck round waits for."""

import json

import pytest
from oatflow.components.errors import ClusterError
from oatflow.components.rounds.opening import open_round
from oatflow.pipelines import cluster_status
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.cli import main
from oatflow.pipelines.cluster_status import describe_runs, failures, full_report
from oatflow.pipelines.kubeflow_client import Cluster, Run, Task

from .kfp_api_double import kfp_api

LEDGER = "s3://bucket/oatflow/kinder"
DETAILS = [
    {"task_id": "1", "display_name": "round", "state": "RUNNING", "child_tasks": [{"pod_name": "pod-2"}]},
    {"task_id": "2", "pod_name": "pod-2", "display_name": "sample", "state": "SUCCEEDED"},
    {"task_id": "3", "parent_task_id": "1", "display_name": "label", "state": "RUNNING",
     "start_time": "2026-01-05T10:00:00Z", "child_tasks": [{"task_id": "4"}]},
    {"task_id": "4", "display_name": "executor", "state": "RUNNING", "start_time": "2026-01-05T10:01:00Z"},
    {"task_id": "5", "parent_task_id": "1", "display_name": "train", "state": "PENDING"},
]  # fmt: skip
OPEN = {"round": 4, "run": "r1", "owner": "pod-x", "until": "2026-01-05 11:00:00+00:00", "free": False,
        "done": ["sampling"], "missing": ["labeling", "policy", "evaluation"]}  # fmt: skip


@pytest.fixture
def api():
    with kfp_api() as served:
        yield served


@pytest.fixture
def run_of(api):
    """Put a run of the experiment `kinder` into the API."""
    experiment = api.create_experiment({}, {"display_name": "kinder", "namespace": "team-a"})

    def put(**state):
        body = {"experiment_id": experiment["experiment_id"], "display_name": "nightly", "stages": [],
                "runtime_config": {"parameters": {"ledger": LEDGER}}, "state": "RUNNING"}  # fmt: skip
        return api._keep(api.runs, "run_id", {**body, **state})["run_id"]

    return put


@pytest.fixture
def ask_pods(monkeypatch):
    """Put something in the place of the Kubernetes API."""

    def put(answer):
        monkeypatch.setattr(cluster_status, "pod_troubles", answer)

    put(lambda namespace, run_id: [])
    return put


@pytest.fixture
def status(api, capsys, ask_pods):
    def run(*arguments, host=api.endpoint):
        with pytest.raises(SystemExit) as stop:
            main(["status", "kinder", "--host", host, "--namespace", "team-a", *arguments])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return run


def waits(runs, round_):
    lines = list(describe_runs({"host": "h", "namespace": "n", "runs": runs}, round_))
    return next((line for line in lines if line.startswith("waits")), "")


def described(run_id, state):
    return {"id": run_id, "name": "nightly", "state": state, "since": None, "error": "", "tasks": [], "pods": []}


def test_what_runs_and_what_is_pending_is_named_by_its_step_and_since_when(run_of, status):
    run_id = run_of(run_details={"task_details": DETAILS})
    code, out, _ = status()
    assert code == 0 and f"run      'nightly' ({run_id}): RUNNING since 2026-01-01" in out
    assert "step label: RUNNING since 2026-01-05 10:01:00 UTC" in out and "step train: PENDING since unknown" in out
    assert "step round" not in out and "step sample" not in out


def test_a_failed_run_says_which_step_failed_and_what_it_said(run_of, status):
    failed = {"task_id": "1", "display_name": "train", "state": "FAILED", "error": {"message": "no space left"}}
    run_of(state="FAILED", run_details={"task_details": [failed]}, error={"message": "step failed"})
    out = status()[1]
    assert "it said: step failed" in out and "step train: FAILED since unknown: no space left" in out


def test_what_its_pods_wait_for_is_asked_for_by_run_and_namespace(run_of, status, ask_pods):
    asked = []
    ask_pods(lambda *who: asked.append(who) or ["train-0: Unschedulable: 0/3 nodes have nvidia.com/gpu"])
    run_id = run_of()
    assert "pods: train-0: Unschedulable: 0/3 nodes have nvidia.com/gpu" in status()[1]
    assert asked == [("team-a", run_id)]


def test_pods_that_cannot_be_asked_about_hide_nothing_else(run_of, status, ask_pods):
    def refuse(namespace, run_id):
        raise ClusterError("no kubeconfig")

    ask_pods(refuse)
    run_of(run_details={"task_details": DETAILS})
    code, out, _ = status()
    assert code == 0 and "pods: not asked: no kubeconfig" in out and "step label: RUNNING" in out


def test_pods_of_a_run_that_has_ended_are_not_asked_about(run_of, status, ask_pods):
    ask_pods(lambda *who: pytest.fail("asked"))
    run_of(state="SUCCEEDED")
    assert "SUCCEEDED" in status()[1]


def test_a_ledger_that_cannot_be_read_from_here_hides_nothing_of_the_cluster(run_of, status, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    run_of()
    code, out, _ = status()
    assert code == 0 and "ledger   not read from here: " in out and "AWS_ACCESS_KEY_ID" in out and "RUNNING" in out


def test_the_ledger_of_the_last_run_is_read_where_none_is_named(api, run_of, ask_pods, tmp_path):
    (tmp_path / "empty").mkdir()
    run_of(runtime_config={"parameters": {"ledger": f"file://{tmp_path}/empty"}})
    report = full_report(Cluster.connect(api.endpoint, "team-a"), "kinder", None)
    assert report["ledger_unread"] == f"file://{tmp_path}/empty: nothing there yet; the first round begins it"


def test_a_stuck_run_is_explained_from_its_ledger(run_of, status, api, tmp_path):
    uri = f"file://{tmp_path}/kinder"
    run_id = run_of(runtime_config={"parameters": {"ledger": uri}}, run_details={"task_details": DETAILS})
    open_round(uri, gather("scripted", None, {}).model_dump(), run_id)
    code, out, _ = status("--ledger", f"file://{tmp_path}")
    assert code == 0 and f"claim    round 0: run {run_id}" in out and "holds until" in out
    assert "waits    round 0 waits for its step sampling, which run 'nightly' works on" in out


def test_an_experiment_that_the_cluster_does_not_know_has_no_runs(status):
    code, out, _ = status()
    assert code == 0 and "runs     none in this experiment" in out


def test_json_holds_the_same(run_of, status):
    run_id = run_of(run_details={"task_details": DETAILS})
    (run,) = json.loads(status("--json")[1])["cluster"]["runs"]
    assert (run["id"], [task["name"] for task in run["tasks"]]) == (run_id, ["label", "train"])


def test_a_cluster_that_is_down_is_said_in_one_line(status):
    code, _, said = status(host="http://127.0.0.1:9")
    assert code == 2 and said.count("\n") == 1 and "is the port-forward up?" in said


def test_a_round_waits_for_the_step_that_is_not_done_and_the_run_that_works_on_it():
    assert waits([described("r1", "RUNNING")], OPEN) == (
        "waits    round 4 waits for its step labeling, which run 'nightly' works on"
    )


def test_a_round_claimed_by_a_run_that_is_gone_waits_until_the_claim_ends():
    assert waits([described("r1", "FAILED")], OPEN) == (
        "waits    round 4 waits for its step labeling; run r1 (pod-x), which is not running here, has claimed it until "
        "2026-01-05 11:00:00+00:00: then the next run takes it over"
    )


def test_a_round_whose_claim_has_ended_waits_for_a_run():
    assert "nobody works on it" in waits([], {**OPEN, "free": True})


def test_a_round_with_all_steps_done_waits_for_being_closed():
    assert "round 4 waits for being closed" in waits([described("r1", "RUNNING")], {**OPEN, "missing": []})


def test_no_round_is_open_and_nothing_waits():
    assert waits([described("r1", "RUNNING")], None) == ""


def test_a_failure_without_a_step_is_what_the_run_says():
    run = Run("r1", "nightly", "FAILED", None, None, "the driver failed", "", {}, ())
    assert failures(run) == ["the driver failed"]


def test_a_failure_in_a_step_is_told_once():
    tasks = (Task("1", "train", "FAILED", None, "", ""), Task("2", "executor", "FAILED", None, "exit code 1", "1"))
    assert failures(Run("r1", "nightly", "FAILED", None, None, "", "", {}, tasks)) == ["step train: exit code 1"]
