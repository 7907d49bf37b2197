"""The history of a job's pods: which of them train, what the others wait for, and how they failed.

It is recorded as it happens, because an operator that gives up a job deletes its pods and their logs.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ClusterError
from .cluster import Cluster
from .container_failures import ContainerFailure, find_failure, find_first_failure, has_begun
from .failure_messages import LAST_LINES, find_own_cause
from .job_kind import Document, JobKind
from .pod_troubles import Trouble, find_troubles
from .rank_zero_log import RankZeroLog


class PodHistory:
    """The pods of one job, `count` of them at a time. `log` is the log of rank 0, printed while it is written."""

    def __init__(self, cluster: Cluster, kind: JobKind, job: Document, count: int):
        self._cluster, self._kind, self._job, self._count = cluster, kind, job, count
        self._pods: dict[str, Document] = {}
        # By uid, as a pod may get the name of one before it.
        self._began: set[str] = set()
        self._ended: set[str] = set()
        self._forgotten: set[str] = set()
        self._made: dict[str, str] = {}
        self._endings: dict[str, ContainerFailure] = {}
        self._tails: dict[tuple[str, int], list[str]] = {}
        self.log = RankZeroLog(cluster, kind.container)

    def take_in(self, pod: Document, gone: bool) -> None:
        """Note how a pod is now, or how it was last. Pods of an earlier job of this name do not count."""
        if not self._kind.owns(self._job, pod):
            return
        name, uid, node = pod["metadata"]["name"], pod["metadata"]["uid"], self._kind.node(pod)
        self._made[name] = pod["metadata"]["creationTimestamp"]
        self._pods.pop(name, None)
        if not gone:
            self._pods[name] = pod
        if has_begun(pod, self._kind.container):
            self._began.add(uid)
        found = find_failure(pod, node, self._kind.container)
        # A pod that is deleted before it trains has not failed: it came in the place of one that had, or another one
        # comes in its place.
        is_failure = uid in self._began or "deletionTimestamp" not in pod["metadata"]
        if found is not None and is_failure and uid not in self._forgotten:
            self._ended.add(uid)
            self._endings[name] = found
            self._keep_tail(found)
        if node == 0 and not gone and uid in self._began:
            self.log.follow_pod(name, _count_restarts(pod, self._kind.container))

    def forget_failures(self) -> None:
        """Forget how pods ended, also where that is reported once more: others come, which may have the same names."""
        self._forgotten |= self._ended
        self._endings.clear()
        self._tails.clear()

    @property
    def started(self) -> int:
        """How many pods there are whose container that trains has begun to run."""
        return sum(pod["metadata"]["uid"] in self._began for pod in self._pods.values())

    @property
    def have_failed(self) -> bool:
        """Whether a container of any pod ever ended badly."""
        return bool(self._endings)

    @property
    def troubles(self) -> list[Trouble]:
        """What pods wait for."""
        return find_troubles(self._pods[name] for name in sorted(self._pods))

    def describe_trouble(self, trouble: Trouble) -> str:
        """Return a trouble in words, with the last line of the log of the container that is waited for."""
        line = self._last_line(trouble) if trouble.log_of else ""
        return f"{trouble} (it wrote last: {line})" if line else str(trouble)

    def find_cause(self) -> str | None:
        """Return what failed first, if anything did: in the program's own words, if it wrote any."""
        first, own = self._first_failure(), find_own_cause(_join_lines(self.log.last))
        if first is None:
            return own
        tail = _join_lines(self._read_tail(first))
        if not first.explains_itself:
            own = find_own_cause(tail) or own
            if own is not None:
                return own
        return (
            first.own_sentence or f"{first.describe_exit(tail)} on worker {first.node} (pod {first.pod}){first.remedy}"
        )

    def read_last_lines(self) -> str:
        """Return the end of rank 0's log, and that of the pod that failed first where it is another."""
        first = self._first_failure()
        lines = f"Last lines of rank 0:\n{_join_lines(self.log.last) or '(it wrote nothing)'}"
        if first is None or first.node == 0:
            return lines
        return (
            f"{lines}\nLast lines of worker {first.node}:\n{_join_lines(self._read_tail(first)) or '(they are lost)'}"
        )

    def _first_failure(self) -> ContainerFailure | None:
        """Return the first failure of the last attempt."""
        found = self._endings
        if self._count == 1 and found:
            # The cluster may have made another pod in the place of one that was evicted: a new attempt.
            return found[max(found, key=self._made.__getitem__)]
        return find_first_failure(found.values())

    def _read_tail(self, found: ContainerFailure) -> list[str]:
        return list(self.log.last) if found.node == 0 else self._tails.get((found.pod, found.restarts), [])

    def _keep_tail(self, found: ContainerFailure) -> None:
        """Fetch the last lines of a pod that may be the one that took the others along."""
        key = found.pod, found.restarts
        if found.node and not self._tails.get(key) and find_first_failure(self._endings.values()) == found:
            options = {"container": found.log_of or self._kind.container, "tailLines": str(LAST_LINES)}
            previous = {"previous": "true"} if found.is_over else {}
            self._tails[key] = list(self._cluster.log(found.pod, **options, **previous))

    def _last_line(self, trouble: Trouble) -> str:
        try:
            return "".join(self._cluster.log(trouble.pod, container=trouble.log_of, tailLines="1"))
        except ClusterError as error:
            # What is said of a pod that waits is not worth ending the training for.
            return f"its log cannot be read: {error}"


def _count_restarts(pod: Document, container: str) -> int:
    """Return how often a pod's container was restarted."""
    found = (one for one in pod["status"]["containerStatuses"] if one["name"] == container)
    return next((int(one.get("restartCount", 0)) for one in found), 0)


def _join_lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)
