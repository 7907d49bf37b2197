"""The TrainJob (trainer.kubeflow.org/v1alpha1, from Kubeflow Trainer 2.2 on) of a training.

What a pod is comes from a runtime of the cluster's, which the job patches. A patch reaches less of a pod than a
PyTorchJob does: priority class, service links, and how often pods are restarted are the runtime's. It cannot say
`automountServiceAccountToken: false` either; instead, an empty folder lies where the token would be, for Kubernetes
mounts no token over another mount. Nor does a TrainJob end itself some time after it finished: the next run's reaper,
or the end of the run's Workflow, does that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import SettingsError
from . import pod_template
from .job import TrainingJob
from .job_kind import Document, JobKind, JobState, describe_condition, find_true_condition, suspended_state
from .settings import JobSettings

_JOBSET, _REPLICATED = (f"jobset.sigs.k8s.io/{name}" for name in ("jobset-name", "replicatedjob-name"))
_INDEX = "batch.kubernetes.io/job-completion-index"
# The runtime's replicated job that trains, and the container in it, have the same name.
_NODE = "node"
_NO_TOKEN, _TOKEN = "no-token", "/var/run/secrets/kubernetes.io/serviceaccount"
_MANAGER = "oatflow.dev/launcher"


def write_manifest(job: TrainingJob, settings: JobSettings, environment: Mapping[str, str]) -> Document:
    """Describe the job to Kubeflow Trainer. Raises `SettingsError` for what a TrainJob cannot carry."""
    if settings.train_priority_class:
        raise SettingsError(
            f"jobs.train_priority_class={settings.train_priority_class!r}: a TrainJob cannot carry it; set it in the "
            f"runtime {settings.train_runtime!r}, or use train_backend=pytorchjob"
        )
    spec: Document = {
        "runtimeRef": {"name": settings.train_runtime},
        "activeDeadlineSeconds": math.ceil(job.timeout_seconds),
        "trainer": _trainer_spec(job, settings, environment),
        "runtimePatches": [_runtime_patch(job, settings)],
    }
    if settings.train_queue:
        # Kueue resumes it when it is its turn.
        spec["suspend"] = True
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": pod_template.job_metadata(job, settings),
        "spec": spec,
    }


def read_state(found: Document) -> JobState:
    """Read how a job fares. A TrainJob that runs has no condition that says so."""
    ended = find_true_condition(found, "Complete", "Failed")
    if ended is not None and ended["type"] == "Complete":
        return JobState("succeeded")
    if ended is not None:
        return JobState("failed", describe_condition(ended), late=ended.get("reason") == "DeadlineExceeded")
    if found["spec"].get("suspend"):
        return suspended_state(found["metadata"].get("labels", {}).get(pod_template.QUEUE))
    active = sum(part.get("active", 0) for part in found.get("status", {}).get("jobsStatus") or [])
    return JobState("running" if active else "waiting")


def owns_pod(job: Document, pod: Document) -> bool:
    """Whether a pod belongs to this very job: those that an earlier job of its name left are older than it.

    Between a TrainJob and its pods are a JobSet and a Job, which the launcher has no right to read.
    """
    return bool(job["metadata"]["creationTimestamp"] <= pod["metadata"]["creationTimestamp"])


def number_pod(pod: Document) -> int:
    """Number a pod among those of its job."""
    # The label came with Kubernetes 1.28; the annotation was there before.
    return int({**pod["metadata"].get("annotations", {}), **pod["metadata"].get("labels", {})}.get(_INDEX, 0))


def _trainer_spec(job: TrainingJob, settings: JobSettings, environment: Mapping[str, str]) -> Document:
    return {
        "numNodes": settings.train_pods,
        "numProcPerNode": pod_template.processes_per_pod(job, settings),
        "image": settings.train_image,
        "command": ["torchrun"],
        "args": pod_template.torchrun_arguments(job),
        "env": pod_template.container_variables(job, settings, environment),
        "resourcesPerNode": pod_template.pod_resources(settings),
    }


def _runtime_patch(job: TrainingJob, settings: JobSettings) -> Document:
    container = {
        "name": _NODE,
        "securityContext": pod_template.container_security(),
        "volumeMounts": [*pod_template.volume_mounts(), {"name": _NO_TOKEN, "mountPath": _TOKEN, "readOnly": True}],
    }
    spec = {
        "containers": [container],
        "volumes": [*pod_template.pod_volumes(settings), {"name": _NO_TOKEN, "emptyDir": {"sizeLimit": "1Mi"}}],
        "securityContext": pod_template.pod_security(),
        **pod_template.pod_placement(settings),
    }
    template = {"metadata": pod_template.pod_metadata(job), "spec": spec}
    nodes = {"name": _NODE, "template": {"spec": {"template": template}}}
    return {"manager": _MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [nodes]}}}}


KIND = JobKind(
    name="TrainJob",
    group="trainer.kubeflow.org",
    version="v1alpha1",
    plural="trainjobs",
    operator="Kubeflow Trainer 2.2 or newer",
    manifest=write_manifest,
    state=read_state,
    pods=lambda name: f"{_JOBSET}={name},{_REPLICATED}={_NODE}",
    owns=owns_pod,
    container=_NODE,
    node=number_pod,
    restarts_pods=True,
)
