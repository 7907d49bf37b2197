"""How the containers of a job's pods ended, and which of them failed first.

An operator deletes the pods of a job as it gives the job up; so this is noted while they live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..step_ending import PREFIX, is_cause
from .failure_messages import explain_exit

# Clocks of two nodes may differ by so much, and a job's other pods fail within less.
TOGETHER = timedelta(seconds=5)
# A container that the node knows nothing of any more, as its pod was deleted or the node lost it.
_UNKNOWN = "ContainerStatusUnknown"
_UNEXPLAINED = frozenset({"", "Error", "Completed"})


@dataclass(frozen=True, slots=True)
class ContainerFailure:
    """A container that failed: of pod number `node`, after `restarts` restarts, `at` a time of the cluster's.

    `at` is empty where the cluster does not say. `is_over`: the container has been started again, and its log is the
    one before. `log_of`: the container whose log says more, where it is not the one that trains.
    """

    pod: str
    node: int
    restarts: int
    at: str
    exit_code: int
    reason: str
    message: str
    is_over: bool
    log_of: str = ""

    @property
    def own_sentence(self) -> str | None:
        """The cause that the program itself wrote to its termination log, if it did."""
        return self.message if self.reason in _UNEXPLAINED and self.message and is_cause(self.message) else None

    @property
    def explains_itself(self) -> bool:
        """Whether more is known than that the container failed, which it also does when another one has."""
        return self.own_sentence is not None or self.reason not in (*_UNEXPLAINED, _UNKNOWN)

    def describe_exit(self, log: str) -> str:
        """Return how it ended; `log` is the end of what it wrote."""
        if self.reason in _UNEXPLAINED:
            # Above 128 a signal ended it: a shell's way to say so.
            status = 128 - self.exit_code if self.exit_code > 128 else self.exit_code
            return self.own_sentence or explain_exit(status, log or f"{PREFIX}{self.message}")
        if self.reason == _UNKNOWN:
            return f"its pod was deleted, or its node lost it ({_UNKNOWN})"
        return f"{self.reason}: {self.message}" if self.message else self.reason

    @property
    def remedy(self) -> str:
        """What to do about it, beginning with a separator; empty where the words say so, or nothing is known."""
        if self.reason == "OOMKilled":
            return (
                "; allow each pod more memory (jobs.train_pod_memory), or use smaller passes "
                "(policy.train_batch_size_per_device)"
            )
        if self.log_of:
            return "; it waits for rank 0's name and port: look at the cluster's DNS and at NetworkPolicies"
        if self.reason == "Evicted" and "scratch" in self.message:
            return "; allow each pod more disk (jobs.train_pod_scratch)"
        if self.reason == "Evicted" and "shared-memory" in self.message:
            return "; allow each pod more shared memory (jobs.train_pod_shared_memory)"
        return ""


def find_failure(pod: Mapping[str, Any], node: int, container: str) -> ContainerFailure | None:
    """Return how this container of a pod failed last, if it ever did."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    found, restarts, back = _failed_state(status, container)
    has_failed = status.get("phase") == "Failed"
    if found is None and not has_failed:
        return None
    failed_init = _failed_init_container(status) if found is None and not status.get("reason") else None
    if failed_init is not None:
        init, code = failed_init
        words = f"its init container {init} failed with exit status {code}"
        return ContainerFailure(name, node, 0, _time_of_failure(status), code, words, "", is_over=False, log_of=init)
    found = found or {}
    at = found.get("finishedAt") or _time_of_failure(status)
    code = found.get("exitCode", 1)
    reason, message = found.get("reason") or "", found.get("message") or ""
    disruption = _find_disruption(status)
    if has_failed and status.get("reason"):
        # The node's word: the container was only stopped for it.
        reason, message = status["reason"], status.get("message", "")
    elif disruption and not back and reason in (*_UNEXPLAINED, _UNKNOWN):
        reason, message = disruption.get("reason", "Disrupted"), disruption.get("message", "")
    return ContainerFailure(name, node, restarts - back, at, code, reason, message, is_over=bool(back))


def has_begun(pod: Mapping[str, Any], container: str) -> bool:
    """Whether this container of a pod runs, or ever ran."""
    for one in pod.get("status", {}).get("containerStatuses") or ():
        if one["name"] == container:
            state, before = one.get("state", {}), one.get("lastState", {})
            return "running" in state or "running" in before or any(map(_has_run, (state, before)))
    return False


def find_first_failure(endings: Iterable[ContainerFailure]) -> ContainerFailure | None:
    """Return the failure that brought the others about: the earliest after the last restart.

    Of those that came together, one that explains itself: a worker whose peer was killed only loses a connection.
    """
    found = list(endings)
    last = [one for one in found if one.restarts == max(other.restarts for other in found)]
    timed = sorted((one for one in last if one.at), key=lambda one: (one.at, one.exit_code < 128))
    if not timed:
        return next(iter(last), None)
    earliest = datetime.fromisoformat(timed[0].at)
    together = [one for one in timed if datetime.fromisoformat(one.at) - earliest <= TOGETHER]
    together += [one for one in last if not one.at]
    return next((one for one in together if one.explains_itself), timed[0])


def _failed_state(status: Mapping[str, Any], container: str) -> tuple[dict[str, Any] | None, int, int]:
    """Return how a container failed last, how often it was restarted, and whether that was before its last restart."""
    for one in status.get("containerStatuses") or ():
        restarts = one.get("restartCount", 0)
        for state, back in (("state", 0), ("lastState", 1)):
            ended = (one.get(state) or {}).get("terminated")
            if one["name"] == container and ended is not None and ended.get("exitCode", 0):
                return dict(ended), restarts, back
    return None, 0, 0


def _failed_init_container(status: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the init container that failed, and its exit code."""
    for one in status.get("initContainerStatuses") or ():
        code = (one.get("state", {}).get("terminated") or {}).get("exitCode", 0)
        if code:
            return str(one["name"]), int(code)
    return None


def _has_run(state: Mapping[str, Any]) -> bool:
    """Whether a state is the end of a container that had been started."""
    ended = state.get("terminated")
    return ended is not None and (bool(ended.get("startedAt")) or ended.get("reason") != _UNKNOWN)


def _find_disruption(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return why the cluster ends this pod, where it does: drained, preempted, its node gone."""
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return dict(condition)
    return None


def _time_of_failure(status: Mapping[str, Any]) -> str:
    """Return when a pod stopped being ready, for containers whose own end was not recorded."""
    by_type = {condition["type"]: condition for condition in status.get("conditions") or ()}
    for name in ("DisruptionTarget", "Ready"):
        if name in by_type:
            return str(by_type[name].get("lastTransitionTime") or "")
    return ""
