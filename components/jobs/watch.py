"""Waiting for one job on a cluster, until it ends well, or an error says why not and what to do."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from ..errors import ClusterError, TrainingFailed
from ..progress import format_duration
from .cluster import PODS, Change, Cluster, Resource
from .job import TrainingJob
from .job_kind import Document, JobKind, JobState
from .pod_history import PodHistory
from .settings import JobSettings

TICK_SECONDS = 1.0
# How much later than the cluster itself this process ends a job whose time is up.
GRACE_SECONDS = 60.0
# When it is said that a job whose pods run has reported nothing yet, and how often then. Loading torch takes less.
SILENT_SECONDS, STILL_SILENT_SECONDS = 120.0, 600.0
# When what a job waits for is said again, with what has changed in its details, and how often then.
REMINDER_SECONDS, REMINDERS_SECONDS = 60.0, 600.0


class JobWatch:
    """Follows a job and its pods until the job ends, or its time is up.

    `failure_of_pods`: why its pods failed, where that ended the job; a new one may fare better.
    """

    def __init__(self, cluster: Cluster, kind: JobKind, job: TrainingJob, settings: JobSettings, found: Document):
        self._cluster, self._kind, self._job, self._settings = cluster, kind, job, settings
        self._found = found
        self._pods = PodHistory(cluster, kind, found, settings.train_pods)
        self._began = time.monotonic()
        self._started: float | None = None
        self._told: frozenset[str] = frozenset()
        self._remind_at = 0.0
        self._silence_told = 0.0
        self.failure_of_pods = ""
        self._news: queue.Queue[tuple[Resource, Change] | BaseException] = queue.Queue()

    def wait_for_end(self) -> None:
        """Wait until the job has ended well. Raises `TrainingFailed`, and `ClusterError` where the cluster fails."""
        with self._watching():
            while not self._state.has_ended and not self._waits_in_vain:
                self._take_in_news()
                self._note_suspension()
                self._note_start()
                self._tell_what_it_waits_for()
                self._tell_silence()
                self._end_what_is_late()
            if self._state.has_ended:
                self._catch_up_with_pods()
            else:
                self._delete_job(pods_first=True)
            self._pods.log.finish_reading()
        if self._state.phase == "succeeded":
            return self._print_line(f"is done after {format_duration(self._age)}")
        why = self._explain_failure()
        if not self._state.late:
            self.failure_of_pods = why
        raise self._make_error(why)

    @property
    def _state(self) -> JobState:
        return self._kind.state(self._found)

    @property
    def _waits_in_vain(self) -> bool:
        """Whether one of several pods has failed, and the cluster starts it again: it would never find the others.

        Its torchrun may join that of rank 0 while that one, too, is about to end; the next rank 0 waits for it.
        """
        return self._kind.restarts_pods and self._settings.train_pods > 1 and self._pods.have_failed

    @property
    def _age(self) -> float:
        created = datetime.fromisoformat(self._found["metadata"]["creationTimestamp"])
        return max(0.0, (datetime.now(UTC) - created).total_seconds())

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Follow the job and its pods in threads of their own, which queue what they hear."""
        stopped = threading.Event()
        # The job may have been deleted since it was found, with nobody listening yet.
        for resource, seen, selector in (
            (Resource.of(self._kind), [self._found], {"fieldSelector": f"metadata.name={self._job.name}"}),
            (PODS, [], {"labelSelector": self._kind.pods(self._job.name)}),
        ):
            args = (resource, seen, selector, stopped)
            threading.Thread(
                target=self._queue_changes, args=args, name=f"watch {resource.plural}", daemon=True
            ).start()
        try:
            yield
        finally:
            stopped.set()
            self._pods.log.stop_reading()

    def _queue_changes(
        self, resource: Resource, seen: list[Document], selector: dict[str, str], stopped: threading.Event
    ) -> None:
        try:
            for change in self._cluster.changes(resource, stopped, seen, **selector):
                self._news.put((resource, change))
        except BaseException as error:  # Raised again by `_take_in`, in the thread that waits for the job.
            self._news.put(error)

    def _take_in_news(self) -> None:
        """Take in all there is to hear; if there is nothing, wait for a tick."""
        try:
            self._take_in(self._news.get(timeout=TICK_SECONDS))
            while True:
                self._take_in(self._news.get_nowait())
        except queue.Empty:
            return

    def _take_in(self, news: tuple[Resource, Change] | BaseException) -> None:
        if isinstance(news, BaseException):
            raise news
        resource, (found, gone) = news
        if resource is PODS:
            self._pods.take_in(found, gone)
        elif found["metadata"]["uid"] == self._found["metadata"]["uid"]:
            # It may be resumed by this.
            self._note_suspension()
            self._found = found
            if gone and not self._state.has_ended:
                self._pods.log.finish_reading()
                raise self._make_error("it was deleted: by a person, by a newer run, or with the run that made it")

    def _catch_up_with_pods(self) -> None:
        """Take in the pods that are left: news of the job may come before theirs, and without them there is no log."""
        try:
            pods = self._cluster.list_all(PODS, labelSelector=self._kind.pods(self._job.name))["items"]
        except ClusterError as error:
            if self._state.phase == "failed":
                raise
            # A training that is done is worth more than its log.
            return self._print_line(f"is done; the end of its log cannot be read: {error}")
        for pod in pods:
            self._pods.take_in(pod, gone=False)

    def _note_suspension(self) -> None:
        """Wait as at the beginning for a job that is suspended: its pods are ended, which is no failure of theirs."""
        if self._waits_in_vain:
            # The news of its pods' ends may come before that of its suspension.
            found = self._cluster.get(Resource.of(self._kind), self._job.name)
            if found is not None and found["metadata"]["uid"] == self._found["metadata"]["uid"]:
                self._found = found
        if self._state.is_suspended:
            self._pods.forget_failures()
            if self._started is not None:
                self._began, self._started, self._silence_told = time.monotonic(), None, 0.0

    def _note_start(self) -> None:
        if self._started is None and not self._state.is_suspended and self._pods.started >= self._settings.train_pods:
            self._started = time.monotonic()
            self._print_line("runs on all of its pods")

    def _tell_what_it_waits_for(self) -> None:
        """Say what keeps the job from running: when it is something new, after a minute, and then now and again."""
        troubles = self._pods.troubles
        causes = {f"{trouble.pod} {trouble.cause}" for trouble in troubles}
        why = self._state.why if self._started is None and self._state.phase == "waiting" else ""
        causes |= {why} - {""}
        now, is_new = time.monotonic(), bool(causes - self._told)
        if is_new or (causes and now >= self._remind_at):
            self._print_line(f"waits: {'; '.join(filter(None, [*map(self._pods.describe_trouble, troubles), why]))}")
            self._remind_at = now + (REMINDER_SECONDS if is_new else REMINDERS_SECONDS)
        self._told = frozenset(causes)

    @property
    def _silent_seconds(self) -> float:
        """How long its pods run without a report of the training program; 0 from its first report on."""
        return time.monotonic() - self._started if self._started is not None and self._pods.log.is_silent else 0.0

    def _tell_silence(self) -> None:
        """Say that the training has reported nothing yet: after a while, and then now and again."""
        silent = self._silent_seconds
        if silent >= (self._silence_told + STILL_SILENT_SECONDS if self._silence_told else SILENT_SECONDS):
            self._silence_told = silent
            limit = format_duration(self._settings.train_start_timeout_seconds)
            self._print_line(
                f"has reported nothing in the {format_duration(silent)} since all of its pods started: "
                f"{self._what_to_look_at()}. It is deleted after {limit} without a report "
                "(jobs.train_start_timeout_seconds)"
            )

    def _what_to_look_at(self) -> str:
        last = f" (rank 0 wrote last: {self._pods.log.last[-1]})" if self._pods.log.last else ""
        if self._settings.train_pods == 1:
            return (
                f"its program hangs before it begins{last}; look at the pod's log for what it waits for, and give it "
                "more time if it is only slow"
            )
        return (
            f"most likely its pods cannot reach each other{last}; look for a NetworkPolicy that keeps training pods "
            "apart (manifests/base opens all ports among them), for a mesh's sidecar in them, and at the network "
            "interface they use (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME)"
        )

    def _end_what_is_late(self) -> None:
        """Delete a job that does not start in time, or that the cluster did not end when its time was up."""
        now, patience = time.monotonic(), self._settings.train_start_timeout_seconds
        if self._started is None and now - self._began > patience:
            what = "; ".join(map(self._pods.describe_trouble, self._pods.troubles)) or self._state.why
            self._delete_job()
            raise self._make_error(
                f"it did not start within {format_duration(patience)} (jobs.train_start_timeout_seconds), and is "
                f"deleted: {what or 'it has no pods'}"
            )
        if self._silent_seconds > patience:
            self._delete_job()
            raise self._make_error(
                f"it reported nothing within {format_duration(patience)} after all of its pods ran "
                f"(jobs.train_start_timeout_seconds), and is deleted: {self._what_to_look_at()}"
            )
        if self._started is not None and now - self._started > self._job.timeout_seconds + GRACE_SECONDS:
            self._delete_job()
            self._pods.log.finish_reading()
            raise self._make_error(
                f"not done after {format_duration(self._job.timeout_seconds)} (policy.train_timeout_seconds), and the "
                "cluster did not end it; it is deleted"
            )

    def _delete_job(self, pods_first: bool = False) -> None:
        self._cluster.delete(Resource.of(self._kind), self._found, owned_first=pods_first)

    def _explain_failure(self) -> str:
        """Say why the job failed: for want of time, by what its pods did, or else in the cluster's words."""
        if self._state.late:
            limit = format_duration(self._job.timeout_seconds)
            return f"not done after {limit} (policy.train_timeout_seconds): {self._state.why}"
        return self._pods.find_cause() or self._state.why

    def _make_error(self, why: str) -> TrainingFailed:
        return TrainingFailed(
            f"{self._kind.name} {self._job.name} failed after {format_duration(self._age)}: {why.rstrip('.')}.\n"
            f"{self._pods.read_last_lines()}"
        )

    def _print_line(self, words: str) -> None:
        print(f"{self._kind.name} {self._job.name} {words}", flush=True)
