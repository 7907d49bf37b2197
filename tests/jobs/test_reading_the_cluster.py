"""What jobs and pods say of themselves, put into words."""

import pytest
from oatflow.components.jobs.container_failures import ContainerFailure, find_failure, find_first_failure
from oatflow.components.jobs.job_kind import JobState
from oatflow.components.jobs.pod_troubles import find_troubles
from oatflow.components.jobs.registry import KINDS
from oatflow.components.progress import format_duration
from oatflow.components.step_ending import BUG


def a_job(*conditions, spec=None, labels=None, **status):
    listed = [
        {"type": name, "status": truth, "reason": f"Because{name}", "message": f"it {name}"}
        for name, truth in conditions
    ]
    return {"metadata": {"labels": labels or {}}, "spec": spec or {}, "status": {"conditions": listed, **status}}


@pytest.mark.parametrize(
    ("conditions", "phase"),
    [
        ([("Created", "True")], "waiting"),
        ([("Created", "True"), ("Running", "True")], "running"),
        ([("Running", "False"), ("Restarting", "True")], "running"),
        ([("Running", "False"), ("Succeeded", "True")], "succeeded"),
        ([("Running", "False"), ("Failed", "True")], "failed"),
        ([("Failed", "False"), ("Running", "True")], "running"),
        ([("Suspended", "True")], "waiting"),
    ],
)
def test_only_true_conditions_of_a_pytorchjob_count(conditions, phase):
    assert KINDS["pytorchjob"].state(a_job(*conditions)).phase == phase


def test_a_deadline_is_told_from_a_crash():
    found = a_job(("Failed", "True"))
    assert KINDS["pytorchjob"].state(found) == JobState("failed", "BecauseFailed: it Failed")
    found["status"]["conditions"][0]["message"] = (
        "Job x has failed because it was active longer than specified deadline"
    )
    assert KINDS["pytorchjob"].state(found).late
    found["status"]["conditions"][0]["reason"] = "DeadlineExceeded"
    assert KINDS["trainjob"].state(found).late


@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob"])
def test_a_suspended_job_names_its_queue(backend):
    suspended = {"suspend": True, "runPolicy": {"suspend": True}}
    queued = a_job(spec=suspended, labels={"kueue.x-k8s.io/queue-name": "gpus"})
    assert "queue 'gpus' of Kueue" in KINDS[backend].state(queued).why
    assert KINDS[backend].state(a_job(spec=suspended)) == JobState("waiting", "suspended", is_suspended=True)


@pytest.mark.parametrize(
    ("found", "phase"),
    [
        (a_job(), "waiting"),
        (a_job(jobsStatus=[{"name": "node", "active": 2}]), "running"),
        (a_job(("Complete", "True"), jobsStatus=[{"name": "node", "active": 0}]), "succeeded"),
        (a_job(("Suspended", "False"), ("Failed", "True")), "failed"),
    ],
)
def test_a_trainjob_runs_when_its_pods_do(found, phase):
    assert KINDS["trainjob"].state(found).phase == phase


def test_nobody_has_taken_up_a_job_without_a_status():
    found = a_job()
    del found["status"]
    assert "has not taken it up" in KINDS["pytorchjob"].state(found).why
    assert KINDS["trainjob"].state(found).phase == "waiting"


@pytest.mark.parametrize(
    ("backend", "labels", "number"),
    [
        ("pytorchjob", {"training.kubeflow.org/replica-type": "master", "training.kubeflow.org/replica-index": "0"}, 0),
        ("pytorchjob", {"training.kubeflow.org/replica-type": "worker", "training.kubeflow.org/replica-index": "0"}, 1),
        ("pytorchjob", {"training.kubeflow.org/replica-type": "worker", "training.kubeflow.org/replica-index": "2"}, 3),
        ("trainjob", {"batch.kubernetes.io/job-completion-index": "3"}, 3),
    ],
)
def test_pods_are_numbered_by_their_nodes_rank(backend, labels, number):
    assert KINDS[backend].node({"metadata": {"labels": labels}}) == number


def a_pod(phase="Pending", name="pod-1", conditions=(), **status):
    return {"metadata": {"name": name}, "status": {"phase": phase, "conditions": list(conditions), **status}}


def waiting(reason, message="", **container):
    state = {"state": {"waiting": {"reason": reason, "message": message}}}
    return [{"name": "pytorch", "image": "trainer:1", **state, **container}]


def initial(state, **container):
    return {"name": "init-pytorch", "image": "busybox:1", "state": state, **container}


def unscheduled(message):
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return a_pod(conditions=[condition])


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (a_pod(), "is being prepared"),
        (unscheduled("no GPU"), "finds no node: Unschedulable: no GPU"),
        (
            a_pod(containerStatuses=waiting("ErrImagePull", "denied")),
            "cannot pull the image trainer:1: ErrImagePull: denied",
        ),
        (a_pod(containerStatuses=waiting("ContainerCreating")), "is starting: its volumes or its image are on the way"),
        (
            a_pod("Running", containerStatuses=waiting("CrashLoopBackOff", restartCount=4)),
            "has been restarted 4 times, and waits for the next",
        ),
        (
            a_pod(initContainerStatuses=waiting("ImagePullBackOff"), containerStatuses=waiting("PodInitializing")),
            "cannot pull the image trainer:1: ImagePullBackOff",
        ),
        (a_pod("Failed", reason="Evicted", message="disk"), "failed: Evicted: disk"),
        (
            a_pod(initContainerStatuses=[initial({"running": {}})], containerStatuses=waiting("PodInitializing")),
            "waits for its init container init-pytorch",
        ),
        (
            a_pod(
                initContainerStatuses=[initial({"waiting": {"reason": "CrashLoopBackOff"}}, restartCount=3)],
                containerStatuses=waiting("PodInitializing"),
            ),
            "init container init-pytorch has been restarted 3 times, and waits for the next",
        ),
    ],
)
def test_what_a_pod_waits_for(pod, words):
    assert [str(trouble) for trouble in find_troubles([pod])] == [f"pod pod-1 {words}"]


def test_a_sidecar_that_runs_is_not_waited_for():
    pod = a_pod(initContainerStatuses=[initial({"running": {}})], containerStatuses=waiting("PodInitializing"))
    pod["spec"] = {"initContainers": [{"name": "init-pytorch", "restartPolicy": "Always"}]}
    assert [one.cause for one in find_troubles([pod])] == ["PodInitializing"]


def test_pods_that_run_or_have_ended_or_go_wait_for_nothing():
    going = a_pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    running = a_pod("Running", containerStatuses=[{"name": "pytorch", "state": {"running": {}}}])
    assert find_troubles([running, a_pod("Succeeded"), going]) == []


def test_a_trouble_stays_the_same_while_only_its_numbers_change():
    three, two = unscheduled("0/3 nodes"), unscheduled("0/2 nodes")
    assert find_troubles([three])[0].cause == find_troubles([two])[0].cause


def evicted(pod):
    pod["status"] |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource"}
    return pod


def disrupted(pod):
    why = {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}
    pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", **why}]
    return pod


def ended(code, reason="Error", restarts=0, at="2026-01-01T00:00:00Z", over=False, name="pod-1", message=""):
    terminated = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at, "message": message}}
    states = {"state": {"running": {}}, "lastState": terminated} if over else {"state": terminated}
    return a_pod("Running", name, containerStatuses=[{"name": "pytorch", "restartCount": restarts, **states}])


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (ended(137, "OOMKilled"), "OOMKilled"),
        (ended(137), "killed by SIGKILL, most likely for want of memory"),
        (ended(143), "killed by SIGTERM"),
        (ended(3), "exit status 3"),
        (ended(128, "StartError"), "StartError"),
        (a_pod("Failed", reason="Evicted", message="The node was low on resource"), "Evicted: The node was low"),
        # What the node, or the cluster, did to the pod; its container was only stopped for it.
        (evicted(ended(137)), "Evicted: The node was low"),
        (disrupted(ended(143)), "EvictionByEvictionAPI: Eviction API: evicting"),
        (disrupted(ended(137, "OOMKilled")), "OOMKilled"),
        (ended(137, "ContainerStatusUnknown"), "its pod was deleted, or its node lost it"),
        (ended(1, message="what the program said"), "what the program said"),
        (ended(1, message=f"{BUG}: KeyError: 1"), f"exit status 1 ({BUG}: KeyError: 1)"),
        (
            a_pod("Failed", initContainerStatuses=[initial({"terminated": {"exitCode": 1, "reason": "Error"}})]),
            "its init container init-pytorch failed with exit status 1",
        ),
    ],
)
def test_how_a_pod_ended(pod, words):
    assert find_failure(pod, 0, "pytorch").describe_exit("").startswith(words)


def test_a_pod_that_runs_or_ended_well_has_no_ending():
    assert (
        find_failure(ended(0, "Completed"), 0, "pytorch") is None
        and find_failure(a_pod("Running"), 0, "pytorch") is None
    )


def test_an_ending_belongs_to_the_run_of_the_container_that_it_ended():
    assert find_failure(ended(1, restarts=2), 0, "pytorch").restarts == 2
    before = find_failure(ended(1, restarts=3, over=True), 0, "pytorch")
    assert before.restarts == 2 and before.is_over


def test_the_first_to_fail_is_the_earliest_after_the_last_restart():
    def one(pod, restarts, second, reason="Error", code=1):
        return ContainerFailure(pod, 0, restarts, f"2026-01-01T00:00:{second:02}Z", code, reason, "", False)

    old, early, late = one("a", 0, 1), one("b", 1, 7), one("c", 1, 8)
    assert find_first_failure([late, old, early]) == early
    # Within one second, who was killed was not taken along.
    killed = one("d", 1, 7, "OOMKilled", 137)
    assert find_first_failure([early, killed]) == killed
    # Nor within what the clocks of two nodes may differ by; much later, it was.
    assert find_first_failure([early, one("e", 1, 9, "OOMKilled", 137)]).pod == "e"
    assert find_first_failure([early, one("e", 1, 30, "OOMKilled", 137)]) == early
    # Of a container that nobody saw end, as its pod was deleted, the cluster gives no time.
    assert (
        find_first_failure([ContainerFailure("f", 1, 1, "", 137, "ContainerStatusUnknown", "", False), early]) == early
    )
    assert find_first_failure([ContainerFailure("g", 1, 1, "", 1, "Evicted", "", False), early]).pod == "g"
    assert find_first_failure([]) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119, "119 s"), (840, "14 min"), (3600, "60 min"), (9000, "2.5 h")]
)
def test_times_are_told_as_people_do(seconds, words):
    assert format_duration(seconds) == words
