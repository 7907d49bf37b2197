"""A training job, and what may run one: a process on this machine, or a job on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One program on several workers. `module`: what each of them runs, as ``python -m`` would."""

    name: str
    module: str
    arguments: tuple[str, ...]
    workers: int
    timeout_seconds: float


class JobBackend(Protocol):
    """Runs jobs."""

    def run(self, job: TrainingJob) -> None:
        """Run a job to its end. Raises `TrainingFailed`, with the reason and the last lines of its log."""
        ...
