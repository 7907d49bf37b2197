"""What is decided when the pipeline is compiled, and cannot be chosen for each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from oatflow.components.images import CONTROL, ORACLE, REGISTRY, SAMPLER, TRAINER

Backend = Literal["local", "pytorchjob", "trainjob"]


@dataclass(frozen=True, slots=True)
class Build:
    """How the pipeline is compiled.

    `train_backend`: what the form offers for it; ``local`` makes the train step train by itself, in the trainer's
    image. `gpu`: whether the images are those with CUDA. `registry`: where one's own images lie. `retries`: how often a
    step whose pod failed is tried again.
    """

    train_backend: Backend = "pytorchjob"
    gpu: bool = True
    registry: str = REGISTRY
    retries: int = 2
    image_pull_secrets: tuple[str, ...] = ()

    @property
    def trains_in_step(self) -> bool:
        """Whether the train step trains by itself."""
        return self.train_backend == "local"

    def image(self, shipped: str) -> str:
        """Return one's own image in place of the shipped one."""
        return f"{self.registry}{shipped.removeprefix(REGISTRY)}{'' if self.gpu else '-cpu'}"

    def images(self) -> dict[str, str]:
        """Return the images that take the place of the shipped ones."""
        return {shipped: self.image(shipped) for shipped in (CONTROL, SAMPLER, ORACLE, TRAINER)}

    def defaults(self) -> Mapping[str, Any]:
        """Return the form's defaults that differ from the settings' own."""
        gpus = "1" if self.gpu else "0"
        return {
            "train_backend": self.train_backend,
            "train_image": self.image(TRAINER),
            "train_pod_gpus": gpus,
            "sampler_gpus": gpus,
        }
