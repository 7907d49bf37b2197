"""How the containers of a job's pods ended, and which of them failed first.

An operator deletes the pods of a job as it gives the job up; so this is noted while they live.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import letters


@dataclass(frozen=True, slots=True)
class Ending:
    """A container that failed: of pod number `node`, after `restarts` restarts, `at` a time of the cluster's.

    `is_over`: the container has been started again, and its log is the one before.
    """

    pod: str
    node: int
    restarts: int
    at: str
    exit_code: int
    reason: str
    message: str
    is_over: bool

    def words(self, log: str) -> str:
        """Say how it ended; `log` is the end of what it wrote."""
        if self.reason in ("", "Error", "Completed"):
            # Above 128 a signal ended it: a shell's way to say so.
            status = 128 - self.exit_code if self.exit_code > 128 else self.exit_code
            return letters.reason(status, log)
        return f"{self.reason}: {self.message}" if self.message else self.reason


def ending(pod: dict[str, Any], node: int) -> Ending | None:
    """Return how a pod's container failed last, if it ever did."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        restarts = container.get("restartCount", 0)
        for state, back in (("state", 0), ("lastState", 1)):
            ended = container.get(state, {}).get("terminated")
            if ended is not None and ended.get("exitCode", 0):
                told = ended.get("reason", ""), ended.get("message", "")
                at = ended.get("finishedAt") or ""
                return Ending(name, node, restarts - back, at, ended["exitCode"], *told, is_over=bool(back))
    if status.get("phase") == "Failed":
        # The node's word, where no container got to say its own: evicted, preempted, lost.
        return Ending(name, node, 0, "", 1, status.get("reason", ""), status.get("message", ""), is_over=False)
    return None


def first_of(endings: Iterable[Ending]) -> Ending | None:
    """Return the failure that brought the others about: the earliest after the last restart.

    Clocks tell seconds; within one, a container that was killed did not fail because of another.
    """
    found = list(endings)
    last = [one for one in found if one.restarts == max(other.restarts for other in found)]
    return min(last, key=lambda one: (one.at, one.reason in ("", "Error"), one.exit_code < 128), default=None)
