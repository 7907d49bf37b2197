"""What the launcher must know of a kind of job: how to ask for one, how it fares, and which pods are its."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .job import TrainingJob
from .settings import JobSettings

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobState:
    """How a job fares, and why. `late`: its time was up. `is_suspended`: it has no pods until someone resumes it."""

    phase: Literal["waiting", "running", "succeeded", "failed"]
    why: str = ""
    late: bool = False
    is_suspended: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.phase in ("succeeded", "failed")


@dataclass(frozen=True, slots=True)
class JobKind:
    """One kind of training job.

    `operator`: what a cluster needs to know the kind. `manifest`: the job as the cluster takes it, given the
    launcher's environment. `state`: how a job that the cluster returned fares. `pods`: the label selector of a job's
    pods, by its name. `owns`: whether a job made a pod of that selector, or an earlier job of its name did.
    `container`: the container of a pod that trains. `node`: which of its job's pods a pod is; pod 0 is the one of
    rank 0. `restarts_pods`: whether a pod that fails is started again within the job.
    """

    name: str
    group: str
    version: str
    plural: str
    operator: str
    manifest: Callable[[TrainingJob, JobSettings, Mapping[str, str]], Document]
    state: Callable[[Document], JobState]
    pods: Callable[[str], str]
    owns: Callable[[Document, Document], bool]
    container: str
    node: Callable[[Document], int]
    restarts_pods: bool


def find_true_condition(found: Document, *types: str) -> Document | None:
    """Return the first of these conditions that is true of an object."""
    conditions = found.get("status", {}).get("conditions") or []
    by_type = {condition["type"]: condition for condition in conditions if condition.get("status") == "True"}
    return next((by_type[name] for name in types if name in by_type), None)


def suspended_state(queue: str | None) -> JobState:
    """Return the state of a job that is suspended: until its queue admits it, where it has one."""
    why = f"suspended, until queue {queue!r} of Kueue admits it" if queue else "suspended"
    return JobState("waiting", why, is_suspended=True)


def describe_condition(condition: Document) -> str:
    """Say a condition as its author wrote it."""
    reason, message = condition.get("reason", ""), condition.get("message", "")
    return f"{reason}: {message}" if reason and message else reason or message or condition["type"]
