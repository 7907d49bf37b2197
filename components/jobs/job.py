"""A training job, and what may run one: processes on this machine, or a job on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One program on several workers, for one round of one experiment.

    `experiment`: digest of the ledger's address; `token`: the fencing token of the claim that the job works under.
    The same three always mean the same job. `ledger`: the address itself, to be shown. `module`: what each worker
    runs, as ``python -m`` would.
    """

    experiment: str
    round: int
    token: int
    ledger: str
    module: str
    arguments: tuple[str, ...]
    workers: int
    timeout_seconds: float

    @property
    def name(self) -> str:
        """Name the job so that whoever starts it again finds it, and nobody else's."""
        return f"oatflow-{self.experiment[:12]}-r{self.round:05d}-t{self.token}"


class JobBackend(Protocol):
    """Runs training jobs."""

    def run(self, job: TrainingJob) -> None:
        """Run a job to its end, or join it where it runs already.

        Raises `TrainingFailed`, with the reason and the last lines of its log, and `ClusterError` where the cluster
        itself does not do what it is asked for.
        """
        ...

    def reap(self, experiment: str, token: int) -> list[str]:
        """End the jobs of an experiment that work under an older token than this one; returns their names."""
        ...
