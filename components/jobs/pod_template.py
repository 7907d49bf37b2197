"""The pods of a training job, as both kinds of job describe them.

They meet the "restricted" Pod Security Standard. Secrets go in by reference alone; of the launcher's own variables
only those travel along that say where things are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import SettingsError
from .job import TrainingJob
from .resources import amount_of
from .settings import JobSettings

EXPERIMENT, ROUND, TOKEN = "oatflow.dev/experiment", "oatflow.dev/round", "oatflow.dev/token"
LEDGER = "oatflow.dev/ledger"
QUEUE = "kueue.x-k8s.io/queue-name"
# Settings of the place, no secrets: they hold for the job as they do for the step that launches it.
PLACE = (
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "OATFLOW_MODELS",
)

# The user of our images. Everything but /tmp is read-only, so that is its home, too.
_USER = 10001
_HOME = "/tmp"
# A mesh's sidecar would outlive the training, and stand between workers that talk on any port.
_NO_SIDECAR = {"sidecar.istio.io/inject": "false"}


def experiment_label(experiment: str) -> str:
    """Shorten an experiment's digest to what its jobs are labelled with."""
    return experiment[:12]


def job_labels(job: TrainingJob) -> dict[str, str]:
    """Return what a job and its pods are found by."""
    return {
        "app.kubernetes.io/name": "oatflow",
        "app.kubernetes.io/component": "trainer",
        EXPERIMENT: experiment_label(job.experiment),
        ROUND: str(job.round),
        TOKEN: str(job.token),
    }


def job_metadata(job: TrainingJob, settings: JobSettings) -> dict[str, Any]:
    """Return the job's own metadata: its name, what it is found by, and the queue it waits in."""
    queue = {QUEUE: settings.train_queue} if settings.train_queue else {}
    return {
        "name": job.name,
        "labels": job_labels(job) | queue,
        "annotations": {LEDGER: job.ledger},
    }


def pod_metadata(job: TrainingJob) -> dict[str, Any]:
    """Return the metadata of each pod."""
    # Istio reads the label; its older versions read the annotation alone.
    return {"labels": job_labels(job) | _NO_SIDECAR, "annotations": {LEDGER: job.ledger} | _NO_SIDECAR}


def processes_per_pod(job: TrainingJob, settings: JobSettings) -> int:
    """Share the workers among the pods. Raises `SettingsError` where they cannot be shared evenly."""
    each, left = divmod(job.workers, settings.train_pods)
    if left or not each:
        raise SettingsError(
            f"jobs.train_pods={settings.train_pods}: policy.train_workers={job.workers} cannot be shared evenly "
            "among so many pods"
        )
    if int(settings.train_pod_gpus) not in (0, each):
        raise SettingsError(
            f"jobs.train_pod_gpus={settings.train_pod_gpus!r}: each pod runs {each} workers, which want a GPU each; "
            f"use {each}, or 0 to train on the CPU"
        )
    return each


def torchrun_arguments(job: TrainingJob) -> list[str]:
    """Return what torchrun is started with; the operator tells it about the other pods by PET_* variables."""
    return ["--module", job.module, *job.arguments]


def container_variables(
    job: TrainingJob, settings: JobSettings, environment: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the container's environment."""
    cores = amount_of(settings.train_pod_cpu)
    threads = max(1, math.floor(cores / processes_per_pod(job, settings)))
    plain = {"HOME": _HOME, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(threads)}
    plain |= {name: environment[name] for name in PLACE if environment.get(name)}
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        _secret_variable("AWS_ACCESS_KEY_ID", settings.s3_secret, "accesskey"),
        _secret_variable("AWS_SECRET_ACCESS_KEY", settings.s3_secret, "secretkey"),
        _secret_variable("HF_TOKEN", settings.keys_secret, "HF_TOKEN", optional=True),
    ]


def pod_resources(settings: JobSettings) -> dict[str, Any]:
    """Return what each pod gets: exactly what it asks for, so that its memory is its own."""
    each = {"cpu": settings.train_pod_cpu, "memory": settings.train_pod_memory}
    if int(settings.train_pod_gpus):
        each[settings.gpu_resource] = settings.train_pod_gpus
    return {"requests": dict(each), "limits": dict(each)}


def pod_volumes(settings: JobSettings) -> list[dict[str, Any]]:
    """Return the volumes: scratch space, and more shared memory than the 64 MiB that a container has by itself."""
    memory = {"medium": "Memory", "sizeLimit": settings.train_pod_shared_memory}
    return [
        {"name": "scratch", "emptyDir": {"sizeLimit": settings.train_pod_scratch}},
        {"name": "shared-memory", "emptyDir": memory},
    ]


def volume_mounts() -> list[dict[str, Any]]:
    """Return where the volumes are."""
    return [{"name": "scratch", "mountPath": _HOME}, {"name": "shared-memory", "mountPath": "/dev/shm"}]


def container_security() -> dict[str, Any]:
    """Return what the container may do: nothing but compute."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_security() -> dict[str, Any]:
    """Return who the pod's processes are."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "fsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def pod_placement(settings: JobSettings) -> dict[str, Any]:
    """Return where the pods may run, who they are, and how they get their image."""
    wanted = {
        "nodeSelector": dict(settings.train_node_selector),
        "tolerations": [dict(toleration) for toleration in settings.train_tolerations],
        "serviceAccountName": settings.train_service_account,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
    }
    return {field: value for field, value in wanted.items() if value}


def _secret_variable(variable: str, secret: str, key: str, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}
