"""What a pipeline run waits for: its steps' pods, and the jobs that those have made."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .cluster import PODS, Cluster, Forbidden, NoSuchKind, Resource
from .kind import Document, JobKind
from .kinds import KINDS
from .troubles import troubles_of

# Somebody sits before the screen.
PATIENCE_SECONDS = 10.0
# Where Kubeflow Pipelines writes the run on a step's pod.
_RUN = "pipeline/runid"
_OURS = "app.kubernetes.io/name=oatflow,app.kubernetes.io/component=trainer"


def pod_troubles(namespace: str, run_id: str) -> list[str]:
    """Say what a run's pods wait for, those of its training jobs too. Raises `ClusterError`."""
    cluster = Cluster.open(os.environ, namespace or None, PATIENCE_SECONDS)
    steps = cluster.list_all(PODS, labelSelector=f"{_RUN}={run_id}")["items"]
    said = [str(trouble) for trouble in troubles_of(steps)]
    for kind in KINDS.values():
        for job in _jobs_of(cluster, kind, _owners(steps)):
            said += _job_troubles(cluster, kind, job)
    return said


def _owners(steps: list[Document]) -> set[str]:
    """Return the uids of what may own the jobs of a run: its Workflow, which owns its pods, or a pod itself."""
    pods = {pod["metadata"]["uid"] for pod in steps}
    return pods | {owner["uid"] for pod in steps for owner in pod["metadata"].get("ownerReferences", ())}


def _jobs_of(cluster: Cluster, kind: JobKind, owners: set[str]) -> Iterator[Document]:
    """Yield the jobs of one kind that one of these owns."""
    try:
        found = cluster.list_all(Resource.of(kind), labelSelector=_OURS)["items"]
    except (NoSuchKind, Forbidden):
        # A cluster seldom has both kinds.
        return
    yield from (job for job in found if owners & {owner["uid"] for owner in job["metadata"].get("ownerReferences", ())})


def _job_troubles(cluster: Cluster, kind: JobKind, job: Document) -> list[str]:
    name, state = job["metadata"]["name"], kind.state(job)
    said = [f"{kind.name} {name} waits: {state.why}"] if state.phase == "waiting" and state.why else []
    return said + [str(one) for one in troubles_of(cluster.list_all(PODS, labelSelector=kind.pods(name))["items"])]
