"""Training jobs on a cluster: created or joined, watched, and deleted once no run needs them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from ..errors import ClusterError, TrainingFailed
from . import pod_template
from .cluster import Cluster, Forbidden, NoSuchKind, Resource
from .job import TrainingJob
from .job_kind import Document, JobKind
from .job_owner import find_owners
from .registry import KINDS
from .settings import JobSettings
from .watch import JobWatch

# How long an object may take to go, and how often another one may come in its place meanwhile.
GOING_SECONDS = 180.0
TRIES = 5
# Deleting a job whose claim is lost is a courtesy; it must not keep the step from ending.
HURRIED_SECONDS = 10.0


class ClusterJobs:
    """Runs each job as one object of the kind that the settings name, in the namespace of this step."""

    def __init__(self, cluster: Cluster, settings: JobSettings, environment: Mapping[str, str]):
        self._cluster, self._settings, self._environment = cluster, settings, environment
        self._kind = KINDS[settings.train_backend]
        self._resource = Resource.of(self._kind)

    @classmethod
    def open(cls, settings: JobSettings) -> ClusterJobs:
        """Connect to the cluster. Raises `ClusterError` where there is none."""
        return cls(Cluster.open(os.environ), settings, os.environ)

    def run(self, job: TrainingJob) -> None:
        """Run a job to its end, or join the one that an earlier attempt of this step started.

        A job whose pods failed is created again, at most `train_restarts` times. If this process is interrupted,
        because it lost its claim, the job is deleted.
        """
        try:
            for restart in range(self._settings.train_restarts + 1):
                if self._run_attempt(job, restart):
                    return
        except KeyboardInterrupt:
            self._delete_in_a_hurry(job)
            raise

    def reap(self, experiment: str, token: int) -> list[str]:
        """Delete the jobs, of every kind, that work for an experiment under an older token; returns their names.

        Jobs that have ended are kept for `train_keep_seconds`, for their logs.
        """
        reaped = []
        for kind in KINDS.values():
            for found in self._list_jobs(kind, experiment):
                if int(found["metadata"]["labels"][pod_template.TOKEN]) < token and not self._is_kept(kind, found):
                    self._cluster.delete(Resource.of(kind), found)
                    reaped.append(str(found["metadata"]["name"]))
        return reaped

    def _run_attempt(self, job: TrainingJob, restart: int) -> bool:
        """Run one attempt of the job. Returns False if a pod failed and another attempt is allowed."""
        found = self._create_or_adopt(job)
        if self._kind.state(found).phase == "succeeded":
            return True
        watch = JobWatch(self._cluster, self._kind, job, self._settings, found)
        try:
            watch.wait_for_end()
        except TrainingFailed:
            allowed = self._settings.train_restarts
            if restart == allowed or not watch.failure_of_pods:
                raise
            self._print_line(job, f"begins again as a new job ({restart + 1} of {allowed}): {watch.failure_of_pods}")
            return False
        return True

    def _create_or_adopt(self, job: TrainingJob) -> Document:
        """Return the job of this name: created now, or found because another process created it."""
        manifest = self._kind.manifest(job, self._settings, self._environment)
        owners = find_owners(self._cluster, self._environment)
        if owners:
            manifest["metadata"]["ownerReferences"] = owners
        for _ in range(TRIES):
            made = self._cluster.create(self._resource, manifest)
            if made is not None:
                self._print_line(job, f"is created in namespace {self._cluster.namespace}")
                return made
            there = self._cluster.get(self._resource, job.name)
            found = self._adopt_job(job, there, owners) if there is not None else None
            if found is not None:
                return found
        raise ClusterError(f"{self._kind.name} {job.name} comes and goes: after {TRIES} tries, it is not there to stay")

    def _adopt_job(self, job: TrainingJob, found: Document, owners: list[Document]) -> Document | None:
        """Take over a job of this name. Returns None if it had to be deleted, so that a new one can be created."""
        self._refuse_foreign(job, found)
        if "deletionTimestamp" in found["metadata"]:
            self._wait_until_gone(job, found)
            return None
        state = self._kind.state(found)
        if state.phase == "succeeded":
            return found
        if state.phase == "failed":
            self._print_line(job, f"failed before ({state.why}); it is made anew")
            # Its pods would be taken for those of the next one.
            self._cluster.delete(self._resource, found, owned_first=True)
            self._wait_until_gone(job, found)
            return None
        self._print_line(job, "is there already; this step waits for it from now on")
        # An earlier run, or the pod of an earlier attempt, may be deleted at any time, and what it owns with it.
        return self._cluster.patch(self._resource, job.name, {"metadata": {"ownerReferences": owners or None}})

    def _refuse_foreign(self, job: TrainingJob, found: Document) -> None:
        ledger = found["metadata"].get("annotations", {}).get(pod_template.LEDGER)
        if ledger != job.ledger:
            raise ClusterError(
                f"{self._kind.name} {job.name} in namespace {self._cluster.namespace} belongs to the ledger {ledger!r},"
                f" not to {job.ledger!r}; look at it (kubectl describe {self._kind.plural} {job.name}), and delete it "
                "if it is not needed"
            )

    def _wait_until_gone(self, job: TrainingJob, found: Document) -> None:
        until, pause = time.monotonic() + GOING_SECONDS, threading.Event()
        while time.monotonic() < until:
            there = self._cluster.get(self._resource, job.name)
            if there is None or there["metadata"]["uid"] != found["metadata"]["uid"]:
                return
            pause.wait(1.0)
        raise ClusterError(
            f"{self._kind.name} {job.name} is being deleted, and still there after {GOING_SECONDS:.0f} s; see its "
            f"finalizers and its pods: kubectl describe {self._kind.plural} {job.name}"
        )

    def _delete_in_a_hurry(self, job: TrainingJob) -> None:
        try:
            found = self._cluster.get(self._resource, job.name, HURRIED_SECONDS)
            if found is not None and found["metadata"].get("annotations", {}).get(pod_template.LEDGER) == job.ledger:
                self._cluster.delete(self._resource, found, HURRIED_SECONDS)
                self._print_line(job, "is deleted, as this step must stop")
        except ClusterError as error:
            # The new holder of the claim reaps it, and it stops by itself once it has lost the claim.
            self._print_line(job, f"is left to itself: {error}")

    def _list_jobs(self, kind: JobKind, experiment: str) -> list[Document]:
        try:
            selector = f"{pod_template.EXPERIMENT}={pod_template.experiment_label(experiment)}"
            return list(self._cluster.list_all(Resource.of(kind), labelSelector=selector)["items"])
        except NoSuchKind:
            return []
        except Forbidden:
            if kind is self._kind:
                raise
            # An account that may not list jobs of the other kind has created none.
            return []

    def _is_kept(self, kind: JobKind, found: Document) -> bool:
        """Whether a job has ended and is kept for its logs; a TrainJob does not delete itself."""
        created = datetime.fromisoformat(found["metadata"]["creationTimestamp"])
        age = (datetime.now(UTC) - created).total_seconds()
        return kind.state(found).has_ended and age < self._settings.train_keep_seconds

    def _print_line(self, job: TrainingJob, words: str) -> None:
        print(f"{self._kind.name} {job.name} {words}", flush=True)
