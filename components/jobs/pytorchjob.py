"""The PyTorchJob (kubeflow.org/v1) of a training: its manifest, its states, its pods."""

from __future__ import annotations

import math
from collections.abc import Mapping

from . import pods
from .job import TrainingJob
from .kind import Document, JobKind, JobState, said, suspended, true_condition
from .settings import JobSettings

_JOB, _TYPE, _INDEX = (f"training.kubeflow.org/{name}" for name in ("job-name", "replica-type", "replica-index"))

# The operator looks for a container of this name.
_CONTAINER = "pytorch"


def manifest(job: TrainingJob, settings: JobSettings, environment: Mapping[str, str]) -> Document:
    """Describe the job to the training operator."""
    template = _template(job, settings, environment)
    replicas = {"Master": _replicas(1, template)}
    if settings.train_pods > 1:
        # Not with 0: the operator makes one all the same.
        replicas["Worker"] = _replicas(settings.train_pods - 1, template)
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": pods.job_metadata(job, settings),
        "spec": {
            "nprocPerNode": str(pods.processes_per_pod(job, settings)),
            "runPolicy": _run_policy(job, settings),
            "pytorchReplicaSpecs": replicas,
        },
    }


def state(found: Document) -> JobState:
    """Read how a job fares. Conditions stay when they are not true any more."""
    ended = true_condition(found, "Succeeded", "Failed")
    if ended is not None and ended["type"] == "Succeeded":
        return JobState("succeeded")
    if ended is not None:
        # The operator has one reason for everything; only its sentence tells a deadline from a crash.
        return JobState("failed", said(ended), late="deadline" in ended.get("message", ""))
    if true_condition(found, "Suspended") is not None or found["spec"].get("runPolicy", {}).get("suspend"):
        return suspended(found["metadata"].get("labels", {}).get(pods.QUEUE))
    if true_condition(found, "Running", "Restarting") is not None:
        return JobState("running")
    return JobState("waiting", "the training operator has not taken it up" if not found.get("status") else "")


def owns(job: Document, pod: Document) -> bool:
    """Whether a pod belongs to this very job, and not to one that had its name before."""
    return any(owner["uid"] == job["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences", ()))


def node(pod: Document) -> int:
    """Number a pod among those of its job: the master, then the workers."""
    labels = pod["metadata"].get("labels", {})
    return int(labels.get(_INDEX, 0)) + int(labels.get(_TYPE) == "worker")


def _template(job: TrainingJob, settings: JobSettings, environment: Mapping[str, str]) -> Document:
    container = {
        "name": _CONTAINER,
        "image": settings.train_image,
        "command": ["torchrun"],
        "args": pods.arguments(job),
        "env": pods.variables(job, settings, environment),
        "resources": pods.resources(settings),
        "securityContext": pods.container_security(),
        "volumeMounts": pods.volume_mounts(),
    }
    spec = {
        "containers": [container],
        "volumes": pods.volumes(settings),
        "securityContext": pods.pod_security(),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **pods.placement(settings),
    }
    if settings.train_priority_class:
        spec["priorityClassName"] = settings.train_priority_class
    return {"metadata": pods.pod_metadata(job), "spec": spec}


def _replicas(count: int, template: Document) -> Document:
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
    manifest=manifest,
    state=state,
    pods=lambda name: f"{_JOB}={name}",
    owns=owns,
    container=_CONTAINER,
    node=node,
    restarts_pods=False,
)
