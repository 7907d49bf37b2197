"""What a real cluster was seen to do while a training ran out of memory, played to the launcher."""

import copy
import time

import pytest
from oatflow.components.errors import TrainingFailed
from oatflow.components.jobs.container_failures import has_begun
from oatflow.components.jobs.job import TrainingJob
from oatflow.components.jobs.launcher import ClusterJobs
from oatflow.components.jobs.pod_troubles import find_troubles
from oatflow.components.jobs.registry import KINDS

from .kubernetes_api_double.recorded import PYTORCHJOB, TRAINJOB, RecordedPod, RecordedRun, lost, running

TRAINING = ("master", "worker", "node")


def states(recording, job):
    """The states of one job and its pods, in their order."""
    return [one for one in recording if one["metadata"]["name"].startswith(job) and one["role"] != "step"]


def said_of(recording, kind, job):
    """What is said of each state of a job's pods: whether the training runs there, and what the pod waits for."""
    return [
        (one["role"], has_begun(one, KINDS[kind].container), "; ".join(one.words for one in find_troubles([one])))
        for one in states(recording, job)
        if one["role"] in TRAINING
    ]


def test_every_recorded_state_of_a_pytorchjobs_pods_is_read_for_what_it_is():
    said = said_of(PYTORCHJOB, "pytorchjob", "oatflow-e0819918de1b")
    assert [(role, runs, words.partition(":")[0]) for role, runs, words in said] == [
        ("worker", False, "finds no node"),
        ("worker", False, "is starting"),
        ("worker", True, ""),
        ("worker", True, ""),
        ("master", True, ""),
        ("worker", True, ""),
        ("worker", False, "waits for its init container init-pytorch"),
        ("master", True, ""),
        ("master", True, ""),
    ]


def test_every_recorded_state_of_a_trainjobs_pods_is_read_for_what_it_is():
    said = said_of(TRAINJOB, "trainjob", "oatflow-10dc4d03dc13")
    assert [(role, runs, words.partition(":")[0]) for role, runs, words in said] == [
        ("node", False, "finds no node"),
        ("node", True, ""),
        ("node", True, ""),
        ("node", True, ""),
        ("node", False, ""),
    ]


@pytest.mark.parametrize(
    ("backend", "recording", "phases"),
    [
        ("pytorchjob", PYTORCHJOB, {"waiting", "running", "succeeded", "failed"}),
        ("trainjob", TRAINJOB, {"running", "succeeded"}),
    ],
)
def test_every_recorded_state_of_a_job_has_a_meaning(backend, recording, phases):
    jobs = [one | {"spec": {}} for one in recording if one["role"] == backend]
    assert {KINDS[backend].state(one | {"status": one["status"] or {}}).phase for one in jobs} == phases


def job(name):
    return TrainingJob(name * 4, 0, 1, "s3://bucket/x", "a_program", (), 2, 600.0)


def recorded(double, plural, container, play, deleted=lambda run: None):
    double.recordings.append(lambda double, found: RecordedRun(double, found, plural, container, play, deleted))


@pytest.mark.slow
def test_a_pytorchjob_that_runs_out_of_memory_twice_ends_with_that_and_with_what_to_raise(double, settings, capfd):
    seen = states(PYTORCHJOB, "oatflow-e0819918de1b")
    unfit, active, starting, both_active, runs, killed, failed, victim, killed_pod, created, init, alone = seen[:12]
    failed_again, master_failed = seen[12:]

    def pods(run):
        run.pods += [
            RecordedPod(victim["metadata"]["name"], ["it grows"]),
            RecordedPod(killed["metadata"]["name"], ["so does this"], ["nslookup: no such host"]),
        ]

    def first(run):
        pods(run)
        for role, state in (
            ("worker", unfit), ("pytorchjob", active), ("master", running(victim)), ("worker", starting),
            ("pytorchjob", both_active), ("worker", runs), ("worker", killed), ("pytorchjob", failed),
        ):  # fmt: skip
            run.send(role, state)

    def deleted(run):
        for role, state in (("master", victim), ("worker", killed_pod)):
            run.send(role, state)

    def second(run):
        pods(run)
        for role, state in (
            ("pytorchjob", created), ("worker", init), ("pytorchjob", active), ("master", running(alone)),
            ("master", alone), ("pytorchjob", failed_again), ("master", master_failed),
        ):  # fmt: skip
            run.send(role, state)

    recorded(double, "pytorchjobs", "pytorch", first, deleted)
    recorded(double, "pytorchjobs", "pytorch", second)
    with pytest.raises(TrainingFailed) as failure:
        ClusterJobs.open(settings(train_pods=2, train_restarts=1)).run(job("e0819918de1b"))
    sentence = str(failure.value).partition("\n")[0]
    assert "OOMKilled on worker 0 (pod oatflow-e0819918de1b-r00000-t1-master-0)" in sentence
    assert "jobs.train_pod_memory" in sentence
    before, _, after = capfd.readouterr().out.partition("begins again as a new job (1 of 1): OOMKilled on worker 1 ")
    # With the worker's container, and not with its init container, which still looks for the master the second time.
    assert before.count("runs on all of its pods") == 1 and "runs on all of its pods" not in after
    assert before.index("worker-0 finds no node") < before.index("worker-0 is starting") < before.index("runs on all")
    assert "worker-0 waits for its init container init-pytorch (it wrote last: nslookup: no such host)" in after


@pytest.mark.slow
def test_a_trainjob_that_runs_out_of_memory_three_times_ends_with_that_and_not_with_a_pod_that_was_replaced(
    double, settings, capfd
):
    active, unfit, runs, killed, peer, replaced = states(TRAINJOB, "oatflow-10dc4d03dc13")

    def play(run):
        run.pods += [RecordedPod(one["metadata"]["name"], ["it grows"]) for one in (killed, peer)]
        # What the attempt before this one left behind is still there, and goes while this one runs.
        run.send("node", lost(replaced), owned=False)
        dying = {**killed, "metadata": {k: v for k, v in killed["metadata"].items() if k != "deletionTimestamp"}}
        for role, state in (
            ("trainjob", active), ("node", unfit), ("node", runs), ("node", running(peer)), ("node", dying),
        ):  # fmt: skip
            run.send(role, state)

    def deleted(run):
        # JobSet makes a new pod while the job is being deleted, which is deleted before its container is there.
        for state in (killed, peer, replaced, lost(replaced)):
            run.send("node", state)

    for _ in range(3):
        recorded(double, "trainjobs", "node", play, deleted)
    with pytest.raises(TrainingFailed) as failure:
        ClusterJobs.open(settings(train_backend="trainjob", train_pods=2, train_restarts=2)).run(job("10dc4d03dc13"))
    sentence = str(failure.value).partition("\n")[0]
    assert "OOMKilled on worker 0 " in sentence and "jobs.train_pod_memory" in sentence
    assert "ContainerStatusUnknown" not in sentence
    said = capfd.readouterr().out
    assert [line.partition(": ")[2][:20] for line in said.splitlines() if "begins again" in line] == [
        "OOMKilled on worker ", "OOMKilled on worker ",
    ]  # fmt: skip
    assert said.count("runs on all of its pods") == 3


@pytest.mark.slow
def test_a_pod_that_jobset_begins_in_the_place_of_the_one_that_failed_is_not_the_cause(double, settings):
    _, _, runs, killed, peer, replaced = states(TRAINJOB, "oatflow-10dc4d03dc13")

    def play(run):
        run.pods += [RecordedPod(one["metadata"]["name"], []) for one in (killed, peer)]
        for state in (runs, running(peer)):
            run.send("node", state)
        # All of it is news at once, and the replacement comes first.
        run.send("node", lost(replaced))
        run.send("node", killed)

    recorded(double, "trainjobs", "node", play)
    with pytest.raises(TrainingFailed, match="OOMKilled on worker 0"):
        ClusterJobs.open(settings(train_backend="trainjob", train_pods=2)).run(job("10dc4d03dc13"))


@pytest.mark.slow
def test_of_a_pod_that_was_evicted_and_the_one_in_its_place_the_latter_is_the_cause(double, settings):
    _, _, _, killed, _, _ = states(TRAINJOB, "oatflow-10dc4d03dc13")
    killed = {**killed, "metadata": {k: v for k, v in killed["metadata"].items() if k != "deletionTimestamp"}}
    first = copy.deepcopy(running(killed))
    first["metadata"]["name"] += "-first"
    evicted = copy.deepcopy(first)
    evicted["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    failed = {"type": "Failed", "status": "True", "reason": "FailedJobs", "message": "jobset failed"}
    failed["lastTransitionTime"] = "2026-11-30T20:28:00Z"

    def play(run):
        run.pods += [RecordedPod(one["metadata"]["name"], []) for one in (first, killed)]
        for state in (first, evicted):
            run.send("node", state)
        # The cluster's times are whole seconds.
        time.sleep(1.1)
        for role, state in (
            ("node", running(killed)),
            ("node", killed),
            ("trainjob", {"status": {"conditions": [failed]}}),
        ):
            run.send(role, state)

    recorded(double, "trainjobs", "node", play)
    with pytest.raises(TrainingFailed, match="OOMKilled on worker 0"):
        ClusterJobs.open(settings(train_backend="trainjob")).run(job("10dc4d03dc13"))
