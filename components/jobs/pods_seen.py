"""What has been seen of a job's pods: which run, what the others wait for, and how they failed.

All of it is noted when it happens: as an operator gives a job up, it deletes its pods, and their logs with them.
"""

from __future__ import annotations

from collections.abc import Iterable

from .cluster import Cluster
from .endings import Ending, ending, first_of
from .kind import Document, JobKind
from .letters import LAST_LINES, own_letter
from .rank_zero_log import RankZeroLog
from .troubles import Trouble, troubles_of


class PodsSeen:
    """The pods of one job. `log`: that of rank 0, which is passed on while it is written."""

    def __init__(self, cluster: Cluster, kind: JobKind):
        self._cluster, self._kind = cluster, kind
        self._pods: dict[str, Document] = {}
        self._endings: dict[str, Ending] = {}
        self._tails: dict[tuple[str, int], list[str]] = {}
        self.log = RankZeroLog(cluster)

    def take_in(self, pod: Document, gone: bool) -> None:
        """Note how a pod is now, or how it was last."""
        name, node = pod["metadata"]["name"], self._kind.node(pod)
        self._pods.pop(name, None)
        if not gone:
            self._pods[name] = pod
        found = ending(pod, node)
        if found is not None:
            self._endings[name] = found
            self._keep_tail(found)
        restarts = _restarts_of_what_ran(pod)
        if node == 0 and not gone and restarts is not None:
            self.log.follow(name, restarts)

    @property
    def started(self) -> int:
        """How many pods are past waiting."""
        return sum(pod.get("status", {}).get("phase", "Pending") != "Pending" for pod in self._pods.values())

    @property
    def have_failed(self) -> bool:
        """Whether a container of any pod ever ended badly."""
        return bool(self._endings)

    @property
    def troubles(self) -> list[Trouble]:
        """What pods wait for."""
        return troubles_of(self._pods[name] for name in sorted(self._pods))

    def cause(self) -> str | None:
        """Say what failed first, if anything did: in the program's own words, if it wrote any."""
        first, own = first_of(self._endings.values()), own_letter(_text(self.log.last))
        if first is None:
            return own
        tail = self._tail(first)
        own = own_letter(_text(tail)) or own
        return own or f"{first.words(_text(tail))} on worker {first.node} (pod {first.pod})"

    def last_lines(self) -> str:
        """Return the end of rank 0's log, and that of the pod that failed first where it is another."""
        first = first_of(self._endings.values())
        lines = f"Last lines of rank 0:\n{_text(self.log.last) or '(it wrote nothing)'}"
        if first is None or first.node == 0:
            return lines
        return f"{lines}\nLast lines of worker {first.node}:\n{_text(self._tail(first)) or '(they are lost)'}"

    def _tail(self, found: Ending) -> list[str]:
        return list(self.log.last) if found.node == 0 else self._tails.get((found.pod, found.restarts), [])

    def _keep_tail(self, found: Ending) -> None:
        """Fetch the last lines of a pod that may be the one that took the others along."""
        key = found.pod, found.restarts
        if found.node and not self._tails.get(key) and first_of(self._endings.values()) == found:
            previous = {"previous": "true"} if found.is_over else {}
            self._tails[key] = list(self._cluster.log(found.pod, tailLines=str(LAST_LINES), **previous))


def _restarts_of_what_ran(pod: Document) -> int | None:
    """Return how often a pod's container was restarted; None where it has not run yet."""
    for container in pod.get("status", {}).get("containerStatuses", ()):
        if container.get("restartCount") or {"running", "terminated"} & container.get("state", {}).keys():
            return int(container.get("restartCount", 0))
    return None


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines)
