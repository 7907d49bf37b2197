"""Settings of what the pods of the steps may use on a cluster. On one machine nothing of this has an effect."""

from __future__ import annotations

from typing import Any

from ..settings import Section, operational
from .settings import COUNT, QUANTITY


class ResourceSettings(Section):
    """What the pods of the steps ask for; the training job's pods are the business of `JobSettings`."""

    sampler_gpus: str = operational("1", pattern=COUNT)
    """GPUs of the pods that sample and evaluate: as many as tensor_parallel_size, or 0 with the CPU images."""
    sampler_cpu: str = operational("8", pattern=QUANTITY)
    """CPU cores of the pods that sample and evaluate."""
    sampler_memory: str = operational("32Gi", pattern=QUANTITY)
    """Memory of the pods that sample and evaluate."""
    sampler_node_selector: dict[str, str] = operational({})
    """Labels of the nodes that sample and evaluate may run on: {"label": "value"}."""
    sampler_tolerations: list[dict[str, Any]] = operational([])
    """Taints that the pods of sample and evaluate tolerate: [{"key": ..., "operator": ..., "effect": ...}]."""
    oracle_gpus: str = operational("0", pattern=COUNT)
    """GPUs of the pod that labels."""
    oracle_cpu: str = operational("2", pattern=QUANTITY)
    """CPU cores of the pod that labels."""
    oracle_memory: str = operational("8Gi", pattern=QUANTITY)
    """Memory of the pod that labels."""
    light_cpu: str = operational("1", pattern=QUANTITY)
    """CPU cores that the pods of steps that compute little may use: those that open, train (watch), fit and close."""
    light_memory: str = operational("4Gi", pattern=QUANTITY)
    """Memory that the pods of steps that compute little may use."""
    light_cpu_request: str = operational("100m", pattern=QUANTITY)
    """CPU that a node must have free for the pod of a step that computes little; at most light_cpu."""
    light_memory_request: str = operational("512Mi", pattern=QUANTITY)
    """Memory that a node must have free for the pod of a step that computes little; at most light_memory."""
