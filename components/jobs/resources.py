"""Settings of what the pods of the steps may use on a cluster. On one machine nothing of this has an effect."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator

from ..settings import Section, operational_field
from .settings import COUNT, QUANTITY

_SUFFIXES = {
    "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


def amount_of(quantity: str) -> float:
    """Return a quantity of Kubernetes as a number: cores, or bytes."""
    number = quantity.rstrip("mkKMGTi")
    return float(number) * _SUFFIXES[quantity.removeprefix(number)]


class ResourceSettings(Section):
    """What the pods of the steps ask for; the training job's pods are the business of `JobSettings`."""

    sampler_gpus: str = operational_field("1", pattern=COUNT)
    """GPUs of the pods that sample and evaluate: as many as tensor_parallel_size, or 0 with the CPU images."""
    sampler_cpu: str = operational_field("8", pattern=QUANTITY)
    """CPU cores of the pods that sample and evaluate."""
    sampler_memory: str = operational_field("32Gi", pattern=QUANTITY)
    """Memory of the pods that sample and evaluate."""
    sampler_node_selector: dict[str, str] = operational_field({})
    """Labels of the nodes that sample and evaluate may run on: {"label": "value"}."""
    sampler_tolerations: list[dict[str, Any]] = operational_field([])
    """Taints that the pods of sample and evaluate tolerate: [{"key": ..., "operator": ..., "effect": ...}]."""
    oracle_gpus: str = operational_field("0", pattern=COUNT)
    """GPUs of the pod that labels."""
    oracle_cpu: str = operational_field("2", pattern=QUANTITY)
    """CPU cores of the pod that labels."""
    oracle_memory: str = operational_field("8Gi", pattern=QUANTITY)
    """Memory of the pod that labels."""
    light_cpu: str = operational_field("1", pattern=QUANTITY)
    """CPU cores that the light steps may use: open-round, fit-reward-model, close-round, and train while a job \
trains."""
    light_memory: str = operational_field("4Gi", pattern=QUANTITY)
    """Memory that the light steps may use."""
    light_cpu_request: str = operational_field("100m", pattern=QUANTITY)
    """CPU that a node must have free for a light step; at most light_cpu."""
    light_memory_request: str = operational_field("512Mi", pattern=QUANTITY)
    """Memory that a node must have free for a light step; at most light_memory. Fitting a small ensemble takes 475 \
MiB, the other steps take 100 to 145 MiB: raise it for a larger ensemble."""

    @model_validator(mode="after")
    def _requests_within_limits(self) -> Self:
        """Kubernetes refuses a pod that requests more than it may use."""
        for name in ("light_cpu", "light_memory"):
            limit, request = getattr(self, name), getattr(self, f"{name}_request")
            if amount_of(request) > amount_of(limit):
                raise ValueError(
                    f"resources.{name}_request={request!r}: more than resources.{name}={limit!r}, which is the most "
                    "that the pod may use; lower the request or raise the limit"
                )
        return self
