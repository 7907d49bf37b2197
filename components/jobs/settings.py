"""Settings of training jobs: where training runs, and on what."""

from __future__ import annotations

from typing import Any, Literal

from ..images import TRAINER
from ..settings import Section, operational_field

# What Kubernetes takes as the name of an object, and as a quantity of memory or CPU.
NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
# Text, not a number: Kubeflow Pipelines leaves a resource out, silently, where the parameter for it is an integer.
COUNT = r"^[0-9]+$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"


class JobSettings(Section):
    """Where training runs. None of this changes what is learned: all of it may differ from run to run."""

    train_backend: Literal["local", "pytorchjob", "trainjob"] = operational_field("local")
    """What runs the training: local (processes inside the train step itself), pytorchjob (the Kubeflow training \
operator) or trainjob (Kubeflow Trainer 2)."""
    train_image: str = operational_field(TRAINER, min_length=1)
    """Container image of the training job's pods."""
    train_pods: int = operational_field(1, ge=1)
    """Pods of the training job; train_workers are shared among them."""
    train_pod_gpus: str = operational_field("0", pattern=COUNT)
    """GPUs of each training pod: one for each of its workers, or 0 to train on the CPU."""
    gpu_resource: str = operational_field("nvidia.com/gpu", min_length=1)
    """What the cluster calls a GPU."""
    train_pod_cpu: str = operational_field("4", pattern=QUANTITY)
    """CPU cores of each training pod."""
    train_pod_memory: str = operational_field("16Gi", pattern=QUANTITY)
    """Memory of each training pod."""
    train_pod_shared_memory: str = operational_field("2Gi", pattern=QUANTITY)
    """Shared memory (/dev/shm) of each training pod; it counts as memory."""
    train_pod_scratch: str = operational_field("50Gi", pattern=QUANTITY)
    """Disk of each training pod for the checkpoint that it works on."""
    train_node_selector: dict[str, str] = operational_field({})
    """Labels of the nodes that training pods may run on."""
    train_tolerations: list[dict[str, Any]] = operational_field([])
    """Taints that training pods tolerate, as Kubernetes writes them: [{"key": ..., "operator": ..., "effect": ...}]."""
    train_service_account: str = operational_field("", pattern=rf"{NAME}|^$")
    """Service account of the training pods; empty: the namespace's default, which needs no rights."""
    train_queue: str = operational_field("", pattern=rf"{NAME}|^$")
    """Local queue of Kueue that the training job waits in; empty: none."""
    train_priority_class: str = operational_field("", pattern=rf"{NAME}|^$")
    """Priority class of the training pods; empty: the cluster's default."""
    train_runtime: str = operational_field("torch-distributed", pattern=NAME)
    """trainjob only: the ClusterTrainingRuntime that the job runs on."""
    train_restarts: int = operational_field(2, ge=0)
    """How often a training may begin again, as a new job, after a pod of its job failed. The one pod of a trainjob is \
restarted by its runtime before that."""
    train_start_timeout_seconds: float = operational_field(3600.0, gt=0)
    """How long a training job may wait for its pods to run (in a queue, for nodes, for its image), and then for its \
first report (for the pods to find each other)."""
    train_keep_seconds: int = operational_field(86_400, ge=0)
    """How long a finished training job is kept for its logs."""
    image_pull_secrets: list[str] = operational_field([])
    """Names of the secrets that training images are pulled with."""
    s3_secret: str = operational_field("mlpipeline-minio-artifact", pattern=NAME)
    """Secret with the store's keys, as accesskey and secretkey."""
    keys_secret: str = operational_field("oatflow-keys", pattern=NAME)
    """Secret with HF_TOKEN, where a hub is asked for a gated model; it need not exist."""
