"""`oatflow status` on a cluster: how the runs are, step by step, and what an open round waits for."""

import copy
import json
from pathlib import Path

import pytest
from oatflow.components.errors import ClusterError
from oatflow.components.jobs.run_in_cluster import RunInCluster
from oatflow.components.rounds.opening import open_round
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.cli import main
from oatflow.pipelines.cluster import status as cluster_status
from oatflow.pipelines.cluster.kubeflow_client import Cluster
from oatflow.pipelines.cluster.status import describe_failures, full_report
from oatflow.pipelines.cluster.status_lines import describe_cluster

from .kfp_api_double import Fault, kfp_api
from .recorded_runs import LOG_OF_TRAIN, TRAIN_POD, as_of, label_at_work, moment, recorded

LEDGER = "s3://bucket/oatflow/kinder"
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def api():
    with kfp_api(multi_user=False) as served:
        yield served


@pytest.fixture
def experiment(api):
    return api.create_experiment({}, {"display_name": "nightly"})["experiment_id"]


@pytest.fixture
def ask_cluster(monkeypatch):
    """Put something in the place of the Kubernetes API; without it, nothing there answers."""

    def put(answer):
        monkeypatch.setattr(cluster_status, "find_run", answer)

    def refuse(namespace, run_id, workflow):
        raise ClusterError("no cluster: no kubeconfig")

    put(refuse)
    return put


@pytest.fixture
def shown(api, experiment, ask_cluster, monkeypatch):
    """Show a recorded run, as KFP's answer was at a moment, and the lines that `status` prints of it."""
    monkeypatch.setattr(cluster_status, "_read_ledger", lambda uri: (None, "not read from here"))

    def show(name, now, run=None, ledger=None, **more):
        api.put_run(experiment, (run or recorded(f"run-{name}")) | more)
        report = full_report(Cluster.connect(api.endpoint, None), "nightly", None, moment(f"2026-11-30T{now}Z"))
        if ledger is not None:
            report["ledger"] = {"open_round": ledger}
        return "\n".join(describe_cluster(report)).replace(api.endpoint, "http://localhost:8888") + "\n"

    return show


@pytest.fixture
def kfp_schedule(api, experiment):
    """Put the recorded schedule into the API: it names the namespace that all of KFP is in."""
    (schedule,) = recorded("recurring-runs")["recurringRuns"]
    api.schedules[schedule["recurring_run_id"]] = {**schedule, "experiment_id": experiment}


@pytest.fixture
def status(api, capsys, ask_cluster):
    def run(*arguments, host=None):
        with pytest.raises(SystemExit) as stop:
            main(["status", "nightly", "--host", host or api.endpoint, *arguments])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return run


def golden(name):
    return (GOLDEN / f"status-{name}.txt").read_text()


def pods_of(namespace, run_id, workflow):
    return RunInCluster(namespace or "kubeflow", True)


def nothing_there(namespace, run_id, workflow):
    return RunInCluster(namespace or "kubeflow", False)


def open_at(step, run, free=False, people=None):
    return {
        "round": 4, "run": run, "owner": "pod-x", "until": "2026-11-30 19:47:00+00:00", "free": free,
        "next_step": step, "people": people,
    }  # fmt: skip


# What is printed of each run that a real cluster recorded.


def test_a_run_at_work(shown, ask_cluster):
    ask_cluster(pods_of)
    assert shown("running", "20:16:03") == golden("running")


def test_a_run_at_work_from_where_the_kubernetes_api_is_not_reached(shown):
    assert shown("running", "20:16:03") == golden("running-without-kubernetes")


def test_a_run_that_succeeded(shown):
    assert shown("succeeded", "20:00:00") == golden("succeeded")


def test_a_run_that_was_terminated(shown):
    assert shown("terminated", "20:00:00") == golden("terminated")


def test_a_run_that_failed_with_the_last_line_of_its_step(api, shown):
    api.logs[TRAIN_POD] = LOG_OF_TRAIN
    assert shown("importer-failed", "20:00:00") == golden("importer-failed")


def test_a_run_that_waits_for_people(shown):
    assert shown("waiting-for-people", "20:00:00") == golden("waiting-for-people")


def test_a_run_that_waits_for_people_whose_ledger_can_be_read(shown):
    people = {"asked": 8, "open": 5, "answers": 5}
    waiting = open_at("label", "846045e1-1709-4e14-a189-1e353f083846", free=True, people=people)
    assert shown("waiting-for-people", "20:00:00", ledger=waiting) == golden("waiting-for-people-with-ledger")


def test_a_run_whose_workflow_is_gone(shown, kfp_schedule, ask_cluster):
    ask_cluster(nothing_there)
    assert shown("whose-workflow-is-gone", "20:16:03") == golden("whose-workflow-is-gone")


def test_a_run_that_may_be_gone_from_where_the_kubernetes_api_is_not_reached(shown):
    assert shown("whose-workflow-is-gone", "20:16:03") == golden("whose-workflow-may-be-gone")


def test_a_run_of_several_rounds(shown, ask_cluster):
    ask_cluster(pods_of)
    rounds = {"root": {"dag": {"tasks": {"round": {}, "round-2": {}}}}}
    assert shown("running", "20:16:03", pipeline_spec={"pipeline_spec": rounds}) == golden("two-rounds")


def test_steps_at_work_show_since_when(shown, ask_cluster):
    ask_cluster(pods_of)
    run = as_of(recorded("run-succeeded"), moment("2026-11-30T19:39:02Z"))
    said = shown("", "19:39:02", run)
    assert "train             running for 28 s" in said or "train             starting for 28 s" in said


# What one wants to know besides.


def test_what_its_pods_wait_for_is_asked_in_the_namespace_of_the_schedules(shown, kfp_schedule, ask_cluster):
    asked = []

    def answer(*where):
        asked.append(where)
        return RunInCluster("kubeflow", True, [], ["pod x finds no node: Unschedulable: Insufficient cpu"])

    ask_cluster(answer)
    assert "waits for: pod x finds no node: Unschedulable: Insufficient cpu" in shown("running", "20:16:03")
    assert asked == [("kubeflow", "caeb17e2-2eb5-4145-abba-ed52d7f0e56b", "oatflow-alignment-rlvld")]


def test_a_run_that_has_ended_well_is_not_looked_for_in_the_cluster(shown, ask_cluster):
    ask_cluster(lambda *who: pytest.fail("asked"))
    assert "SUCCEEDED" in shown("succeeded", "20:00:00")


def test_a_workflow_that_is_there_is_not_gone_however_long_nothing_moves(shown, kfp_schedule, ask_cluster):
    ask_cluster(pods_of)
    assert "RUNNING since 2026-11-30 19:44:40 UTC, for 9 h" in shown("whose-workflow-is-gone", "20:16:03").replace(
        "for 31 min 23 s", "for 9 h"
    )


def test_a_run_is_not_called_gone_where_workflows_cannot_be_read_and_a_pod_exists(shown, kfp_schedule, ask_cluster):
    ask_cluster(lambda namespace, *_: RunInCluster(namespace, None, [{"metadata": {"name": "pod"}}]))
    assert "gone" not in shown("whose-workflow-is-gone", "20:16:03")


def test_a_namespace_that_was_guessed_is_no_proof_that_a_run_is_gone(shown, ask_cluster):
    ask_cluster(nothing_there)
    assert "its workflow is gone, or a pod of it cannot start" in shown("whose-workflow-is-gone", "20:16:03")
    assert "gone" not in shown("whose-workflow-is-gone", "19:47:00")


def test_a_claim_that_lapsed_long_ago_casts_doubt_on_a_run(api, experiment, monkeypatch, ask_cluster):
    run = recorded("run-succeeded")
    run_id = api.put_run(experiment, as_of(run, moment("2026-11-30T19:37:40Z")))
    for free, doubt in ((True, True), (False, False)):
        ledger = {"open_round": open_at("sample", run_id, free)}
        monkeypatch.setattr(cluster_status, "_read_ledger", lambda uri, ledger=ledger: (ledger, ""))
        report = full_report(Cluster.connect(api.endpoint, None), "nightly", None, moment("2026-11-30T19:58:00Z"))
        assert ("its workflow is gone, or a pod of it cannot start" in "\n".join(describe_cluster(report))) is doubt


def test_a_last_line_comes_from_the_pods_message_before_its_log(api, shown, ask_cluster, monkeypatch):
    ended = {"name": "main", "state": {"terminated": {"exitCode": 1, "message": "raise train_pod_memory"}}}
    pod = {"metadata": {"name": TRAIN_POD}, "status": {"containerStatuses": [ended]}}
    ask_cluster(lambda namespace, *_: RunInCluster("kubeflow", True, [pod]))
    api.logs[TRAIN_POD] = LOG_OF_TRAIN
    assert "raise train_pod_memory\n" in shown("importer-failed", "20:00:00")


def test_a_last_line_comes_from_kfp_itself_where_it_has_one(api, shown):
    run = recorded("run-importer-failed")
    for task in run["run_details"]["task_details"]:
        if task["display_name"] == "train":
            task["error"] = {"message": "no space left"}
    assert "no space left" in shown("", "20:00:00", run)


def test_a_log_is_asked_for_with_the_users_token(api, experiment, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("hidden-words")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    api.token, api.logs[TRAIN_POD] = "hidden-words", LOG_OF_TRAIN
    run_id = api.put_run(experiment, recorded("run-importer-failed"))
    assert Cluster.connect(api.endpoint, None).step_log(run_id, TRAIN_POD)[-2] == "Error: exit status 1"


def test_a_log_that_nobody_has_any_more_says_where_to_look(shown):
    assert f"try `kubectl logs -n NAMESPACE {TRAIN_POD} -c main`" in shown("importer-failed", "20:00:00")


def test_older_runs_that_ended_are_one_line(api, experiment, shown):
    older = copy.deepcopy(recorded("run-importer-failed")) | {"created_at": "2026-11-29T19:03:02Z"}
    api.put_run(experiment, older)
    said = shown("succeeded", "20:00:00")
    assert "FAILED, 2026-11-30 19:03:03 to 19:08:30 UTC, 5 min 27 s\n         failed: train\n" in said
    assert said.count("open-round") == 1


def test_a_ledger_that_cannot_be_read_from_here_hides_nothing_of_the_cluster(api, experiment, status, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    api.put_run(experiment, recorded("run-running"))
    code, out, _ = status()
    assert code == 0 and "ledger   not read from here: " in out and "AWS_ACCESS_KEY_ID" in out and "RUNNING" in out


def test_the_ledger_of_the_last_run_is_read_where_none_is_named(api, experiment, ask_cluster, tmp_path):
    (tmp_path / "empty").mkdir()
    run = recorded("run-running")
    run["runtime_config"] = {"parameters": {"ledger": f"file://{tmp_path}/empty"}}
    api.put_run(experiment, run)
    report = full_report(Cluster.connect(api.endpoint, None), "nightly", None, moment("2026-11-30T20:16:03Z"))
    assert report["ledger_unread"] == f"file://{tmp_path}/empty: nothing there yet; the first round begins it"


def test_a_run_at_work_is_explained_from_its_ledger(api, experiment, status, ask_cluster, tmp_path):
    ask_cluster(pods_of)
    uri = f"file://{tmp_path}/nightly"
    run_id = api.put_run(experiment, recorded("run-running"))
    open_round(uri, gather("scripted", None, {}).model_dump(), run_id)
    code, out, _ = status("--ledger", f"file://{tmp_path}")
    assert code == 0 and f"claim    round 0: run {run_id}" in out and "holds until" in out
    assert "waits    round 0 is at its step sample; run 'nightly 2026-11-30 20:14:57' works on it" in out


def test_an_experiment_that_the_cluster_does_not_know_lists_those_that_there_are(api, experiment, status):
    api.create_experiment({}, {"display_name": "shorter"})
    with pytest.raises(SystemExit):
        main(["status", "kinder", "--host", api.endpoint])
    api.experiments.clear()
    assert "runs     none: this Kubeflow has no experiments yet" in status()[1]


def test_an_unknown_experiment_is_said_with_the_known_ones(api, experiment, ask_cluster):
    report = full_report(Cluster.connect(api.endpoint, None), "nightlyy", None, moment("2026-11-30T20:16:03Z"))
    assert "runs     none: this Kubeflow has no experiment 'nightlyy'; it has nightly" in list(describe_cluster(report))


def test_runs_that_were_started_in_the_ui_are_found_in_kfps_own_experiment(api, ask_cluster, monkeypatch):
    monkeypatch.setattr(cluster_status, "_read_ledger", lambda uri: (None, "not read from here"))
    default = api.create_experiment({}, {"display_name": "Default"})["experiment_id"]
    run_id = api.put_run(default, recorded("run-running"))
    api.put_run(default, recorded("run-succeeded"))
    report = full_report(Cluster.connect(api.endpoint, None), "nightly", None, moment("2026-11-30T20:16:03Z"))
    assert [run["id"] for run in report["cluster"]["runs"]] == [run_id]
    assert "runs     none" not in "\n".join(describe_cluster(report))


def test_the_run_that_holds_the_open_round_is_shown_whatever_experiment_it_is_in(
    api, experiment, ask_cluster, monkeypatch
):
    default = api.create_experiment({}, {"display_name": "Default"})["experiment_id"]
    run_id = api.put_run(default, recorded("run-running"))
    api.put_run(experiment, recorded("run-terminated"))
    ledger = {"open_round": open_at("sample", run_id)}
    monkeypatch.setattr(cluster_status, "_read_ledger", lambda uri: (ledger, ""))
    report = full_report(Cluster.connect(api.endpoint, None), "nightly", None, moment("2026-11-30T20:16:03Z"))
    assert "is at its step sample; run 'nightly 2026-11-30 20:14:57' works on it" in waits(
        "\n".join(describe_cluster(report))
    )


def test_a_run_that_is_not_there_is_refused_with_those_that_are(api, experiment, status):
    run_id = api.put_run(experiment, recorded("run-running"))
    code, _, said = status("--run", "00000000-0000-0000-0000-000000000000")
    assert code == 2 and said.count("\n") == 1
    assert f"there is no such run in {api.endpoint}; the last runs of this experiment: {run_id} (nightly 2026" in said


def test_one_run_can_be_asked_for(api, experiment, status):
    api.put_run(experiment, recorded("run-running"))
    _, out, _ = status("--run", api.put_run(experiment, recorded("run-succeeded")))
    assert "SUCCEEDED" in out and "RUNNING" not in out


def test_json_holds_the_same(api, experiment, status):
    run_id = api.put_run(experiment, recorded("run-terminated"))
    (run,) = json.loads(status("--json")[1])["cluster"]["runs"]
    assert (run["id"], run["began"], run["terminated"]) == (
        run_id, "2026-11-30T19:52:53+00:00", "2026-11-30T19:55:46+00:00",
    )  # fmt: skip
    train = next(step for step in run["steps"] if step["name"] == "train")
    assert (train["state"], train["seconds"], train["round"]) == ("stopped", 53, 1)


def test_a_cluster_that_is_down_is_said_in_one_line(status):
    code, _, said = status(host="http://127.0.0.1:9")
    assert code == 2 and said.count("\n") == 1 and "is the port-forward up?" in said


def test_a_server_that_fails_is_not_taken_for_a_run_that_is_not_there(api, experiment, status):
    api.faults.append(Fault("GET", "runs/", 403))
    code, _, said = status("--run", "00000000-0000-0000-0000-000000000000")
    assert code == 2 and "the credentials" in said and "no such run" not in said


# What the open round waits for.


def waits(said):
    return next((line for line in said.splitlines() if line.startswith("waits")), "")


def test_a_round_claimed_by_a_run_that_does_not_run_here_waits_until_the_claim_ends(shown):
    said = waits(shown("terminated", "20:00:00", ledger=open_at("train", "another")))
    assert "round 4 stopped at its step train; run another (pod-x), which does not run here, holds its claim" in said


def test_a_round_whose_claim_has_ended_is_carried_on_by_a_new_run(shown):
    said = waits(shown("terminated", "20:00:00", ledger=open_at("fit", "another", free=True)))
    assert "stopped at its step fit-reward-model" in said and "oatflow submit --experiment nightly" in said


def test_a_round_whose_run_is_gone_says_so(shown, kfp_schedule, ask_cluster):
    ask_cluster(nothing_there)
    run = recorded("run-whose-workflow-is-gone")
    said = waits(shown("", "20:16:03", run, ledger=open_at("label", run["run_id"], free=True)))
    assert "which worked on it, is gone; `oatflow submit --experiment nightly" in said


def test_a_round_with_all_steps_done_is_about_to_be_closed(shown, ask_cluster):
    ask_cluster(pods_of)
    run = recorded("run-running")
    assert "round 4 is before it is closed" in waits(shown("", "20:16:03", run, ledger=open_at(None, run["run_id"])))


def test_duels_that_are_all_answered_wait_for_the_next_run(shown):
    people = {"asked": 8, "open": 0, "answers": 0}
    said = waits(shown("waiting-for-people", "20:00:00", ledger=open_at("label", "r", free=True, people=people)))
    assert "for a new run: people have answered all 8 duels; `oatflow submit" in said and "oatflow label" not in said


def test_a_step_that_waits_for_people_while_it_runs_says_how_to_answer(api, shown):
    run, pod = label_at_work()
    run["runtime_config"]["parameters"]["preference_oracle"] = "human"
    api.logs[pod] = '{"at": 1.0, "event": "start"}\n{"at": 2.0, "event": "waits", "why": "5 of 8 duels are open"}\n'
    said = shown("", "19:50:00", run)
    assert "label             running for 11 min 56 s: 5 of 8 duels are open\n" in said
    assert "for people: 5 of 8 duels are open. `oatflow label nightly --ledger '" in waits(said)


def test_people_are_named_before_the_run_that_waits_for_them(shown, ask_cluster):
    ask_cluster(pods_of)
    run, _ = label_at_work()
    for open_, words in ((5, "waits for people: 5 of 8 duels are open"), (0, "works on it")):
        people = {"asked": 8, "open": open_, "answers": open_}
        assert words in waits(shown("", "19:38:40", run, ledger=open_at("label", run["run_id"], people=people)))


# What `submit --wait` says at the end.


def test_failures_name_the_step_and_its_last_line(api, experiment, ask_cluster):
    api.logs[TRAIN_POD] = LOG_OF_TRAIN
    cluster = Cluster.connect(api.endpoint, None)
    assert describe_failures(cluster, cluster.run(api.put_run(experiment, recorded("run-importer-failed")))) == [
        "train failed: the training ran out of memory on worker 0 (OOMKilled); raise train_pod_memory, which is 3Gi",
        "Kubeflow's own task importer failed",
    ]


def test_a_terminated_run_did_not_fail(api, experiment, ask_cluster):
    cluster = Cluster.connect(api.endpoint, None)
    assert describe_failures(cluster, cluster.run(api.put_run(experiment, recorded("run-terminated")))) == [
        "the run was terminated at 2026-11-30 19:55:46 UTC during train"
    ]
