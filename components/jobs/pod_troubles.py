"""What pods wait for, in words, read from what the cluster says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not run. `cause` stays the same while only details change, such as numbers in the message.

    `log_of`: the container that the pod waits for, whose log says more; empty where there is none.
    """

    pod: str
    cause: str
    words: str
    log_of: str = ""

    def __str__(self) -> str:
        return f"pod {self.pod} {self.words}"


def find_troubles(pods: Iterable[dict[str, Any]]) -> list[Trouble]:
    """Say of every pod that should run and does not what it waits for."""
    found = (_find_trouble(pod) for pod in pods)
    return [trouble for trouble in found if trouble is not None]


def _find_trouble(pod: dict[str, Any]) -> Trouble | None:
    """Say what a pod waits for; None where it runs, has ended well or is being deleted."""
    phase = pod.get("status", {}).get("phase", "Pending")
    if phase == "Succeeded" or "deletionTimestamp" in pod["metadata"]:
        return None
    waits_for = _running_init_container(pod)
    if waits_for and phase == "Pending":
        words = f"waits for its init container {waits_for}"
        return Trouble(pod["metadata"]["name"], f"init {waits_for}", words, log_of=waits_for)
    for cause, words in (*_find_failure(pod), *_waiting_containers(pod), *_find_scheduling_trouble(pod)):
        return Trouble(pod["metadata"]["name"], cause, words)
    if phase == "Pending":
        return Trouble(pod["metadata"]["name"], "Pending", "is being prepared")
    return None


def _running_init_container(pod: dict[str, Any]) -> str:
    """Return the init container that runs, if one does; a sidecar is one that never ends."""
    specs = {one["name"]: one for one in pod.get("spec", {}).get("initContainers") or ()}
    for container in pod.get("status", {}).get("initContainerStatuses") or ():
        sidecar = specs.get(container["name"], {}).get("restartPolicy") == "Always"
        if "running" in container.get("state", {}) and not sidecar:
            return str(container["name"])
    return ""


def _find_failure(pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason"):
        yield status["reason"], f"failed: {_quote_reason(status)}"


def _waiting_containers(pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Say what containers wait for, what will not pass by itself first."""
    status = pod.get("status", {})
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    waiting = [(one, one["state"]["waiting"]) for one in containers if "waiting" in one.get("state", {})]
    first = {one.get("name") for one in status.get("initContainerStatuses", ())}
    for container, state in sorted(waiting, key=lambda one: one[1].get("reason") in _STARTING):
        reason = state.get("reason", "Waiting")
        if reason in _IMAGE:
            yield "image", f"cannot pull the image {container.get('image')}: {_quote_reason(state)}"
        elif reason == "CrashLoopBackOff":
            which = f"init container {container['name']} " if container.get("name") in first else ""
            yield reason, f"{which}has been restarted {container.get('restartCount', 0)} times, and waits for the next"
        elif reason in _STARTING:
            yield reason, "is starting: its volumes or its image are on the way"
        else:
            yield reason, f"cannot start: {_quote_reason(state)}"


def _find_scheduling_trouble(pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield condition.get("reason", "Unschedulable"), f"finds no node: {_quote_reason(condition)}"


def _quote_reason(state: dict[str, Any]) -> str:
    reason, message = state.get("reason", ""), state.get("message", "")
    return f"{reason}: {message}" if message else reason
