"""The PyTorchJob (kubeflow.org/v1) of a training: its manifest, its states, its pods."""

from __future__ import annotations

import math
from collections.abc import Mapping

from . import pod_template
from .job import TrainingJob
from .job_kind import Document, JobKind, JobState, describe_condition, find_true_condition, suspended_state
from .settings import JobSettings

_JOB, _TYPE, _INDEX = (f"training.kubeflow.org/{name}" for name in ("job-name", "replica-type", "replica-index"))

# The operator looks for a container of this name.
_CONTAINER = "pytorch"


def write_manifest(job: TrainingJob, settings: JobSettings, environment: Mapping[str, str]) -> Document:
    """Describe the job to the training operator."""
    template = _pod_template(job, settings, environment)
    replicas = {"Master": _replica_spec(1, template)}
    if settings.train_pods > 1:
        # Not with 0: the operator makes one all the same.
        replicas["Worker"] = _replica_spec(settings.train_pods - 1, template)
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": pod_template.job_metadata(job, settings),
        "spec": {
            "nprocPerNode": str(pod_template.processes_per_pod(job, settings)),
            "runPolicy": _run_policy(job, settings),
            "pytorchReplicaSpecs": replicas,
        },
    }


def read_state(found: Document) -> JobState:
    """Read how a job fares. Conditions stay when they are not true any more."""
    ended = find_true_condition(found, "Succeeded", "Failed")
    if ended is not None and ended["type"] == "Succeeded":
        return JobState("succeeded")
    if ended is not None:
        # The operator has one reason for everything; only its sentence tells a deadline from a crash.
        return JobState("failed", describe_condition(ended), late="deadline" in ended.get("message", ""))
    if find_true_condition(found, "Suspended") is not None or found["spec"].get("runPolicy", {}).get("suspend"):
        return suspended_state(found["metadata"].get("labels", {}).get(pod_template.QUEUE))
    if find_true_condition(found, "Running", "Restarting") is not None:
        return JobState("running")
    return JobState("waiting", "the training operator has not taken it up" if not found.get("status") else "")


def owns_pod(job: Document, pod: Document) -> bool:
    """Whether a pod belongs to this very job, and not to one that had its name before."""
    return any(owner["uid"] == job["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences", ()))


def number_pod(pod: Document) -> int:
    """Number a pod among those of its job: the master, then the workers."""
    labels = pod["metadata"].get("labels", {})
    return int(labels.get(_INDEX, 0)) + int(labels.get(_TYPE) == "worker")


def _pod_template(job: TrainingJob, settings: JobSettings, environment: Mapping[str, str]) -> Document:
    container = {
        "name": _CONTAINER,
        "image": settings.train_image,
        "command": ["torchrun"],
        "args": pod_template.torchrun_arguments(job),
        "env": pod_template.container_variables(job, settings, environment),
        "resources": pod_template.pod_resources(settings),
        "securityContext": pod_template.container_security(),
        "volumeMounts": pod_template.volume_mounts(),
    }
    spec = {
        "containers": [container],
        "volumes": pod_template.pod_volumes(settings),
        "securityContext": pod_template.pod_security(),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **pod_template.pod_placement(settings),
    }
    if settings.train_priority_class:
        spec["priorityClassName"] = settings.train_priority_class
    return {"metadata": pod_template.pod_metadata(job), "spec": spec}


def _replica_spec(count: int, template: Document) -> Document:
    # One pod that is started again finds the torchrun of rank 0 from before, still ending: it joins that one, the next
    # rank 0 waits for it, and nobody trains. So a job fails with its first pod, and the launcher makes another one.
    return {"replicas": count, "restartPolicy": "Never", "template": template}


def _run_policy(job: TrainingJob, settings: JobSettings) -> Document:
    policy = {
        "activeDeadlineSeconds": math.ceil(job.timeout_seconds),
        "ttlSecondsAfterFinished": settings.train_keep_seconds,
        "cleanPodPolicy": "Running",
    }
    if settings.train_queue:
        # Kueue resumes it when it is its turn.
        policy["suspend"] = True
    return policy


KIND = JobKind(
    name="PyTorchJob",
    group="kubeflow.org",
    version="v1",
    plural="pytorchjobs",
    operator="the Kubeflow training operator",
    manifest=write_manifest,
    state=read_state,
    pods=lambda name: f"{_JOB}={name}",
    owns=owns_pod,
    container=_CONTAINER,
    node=number_pod,
    restarts_pods=False,
)
