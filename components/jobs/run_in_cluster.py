"""What the cluster knows of a pipeline run: its workflow, its steps' pods, and the jobs that those have made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .cluster import PODS, Cluster, Forbidden, NoSuchKind, Resource
from .job_kind import Document, JobKind
from .pod_troubles import find_troubles
from .registry import KINDS

# A user waits for the answer.
PATIENCE_SECONDS = 10.0
WORKFLOWS = Resource("/apis/argoproj.io/v1alpha1", "workflows", "Argo Workflows")
SCHEDULES = Resource("/apis/kubeflow.org/v1beta1", "scheduledworkflows", "Kubeflow Pipelines")
# Where Kubeflow Pipelines is installed, unless an admin chose another namespace.
USUAL_NAMESPACE = "kubeflow"
LAST_LINES = 200
# Kubeflow Pipelines writes the run on a step's pod; a step's own container is called main.
_RUN, _MAIN = "pipeline/runid", "main"
_OURS = "app.kubernetes.io/name=oatflow,app.kubernetes.io/component=trainer"
_OUR_PREFIX = "oatflow: "
# Lines of KFP's launcher and driver (glog), of Argo's executor, and of the progress that our steps write.
_NOT_OURS = re.compile(r'[IWEF]\d{4} \d\d:\d\d:\d\d|time=|level=|Error: exit status|\{"at": ')


@dataclass(frozen=True, slots=True)
class RunInCluster:
    """What one namespace has of a run.

    `workflow`: whether its Workflow exists; None where this account may not read it. `troubles`: what pods wait for.
    """

    namespace: str
    workflow: bool | None
    pods: Sequence[Document] = ()
    troubles: Sequence[str] = field(default_factory=list)

    @property
    def is_here(self) -> bool:
        """Whether the namespace has anything of the run."""
        return bool(self.workflow or self.pods)


def find_run(namespace: str, run_id: str, workflow: str) -> RunInCluster:
    """Return what the cluster has of a run.

    Without a namespace, that of the kubeconfig's context (or of this pod) is searched, then USUAL_NAMESPACE.
    Raises `ClusterError`.
    """
    found = _search_namespace(_open_cluster(namespace), run_id, workflow)
    if found.is_here or namespace or found.namespace == USUAL_NAMESPACE:
        return found
    try:
        usual = _search_namespace(_open_cluster(USUAL_NAMESPACE), run_id, workflow)
    except Forbidden:
        return found
    return usual if usual.is_here or usual.workflow is not None else found


def pod_troubles(namespace: str, run_id: str) -> list[str]:
    """Return what a run's pods wait for, those of its training jobs too. Raises `ClusterError`."""
    cluster = _open_cluster(namespace)
    return _describe_troubles(cluster, cluster.list_all(PODS, labelSelector=f"{_RUN}={run_id}")["items"])


def has_schedule(namespace: str, schedule_id: str) -> bool:
    """Whether the cluster has the object of one of KFP's schedules: its uid is the schedule's id."""
    found = _open_cluster(namespace).list_all(SCHEDULES)["items"]
    return any(each["metadata"]["uid"] == schedule_id for each in found)


def read_last_words(found: RunInCluster, pod: str) -> str | None:
    """Return the message that a step's pod left, else the last line of its log; None where it has neither."""
    message = _termination_message(found.pods, pod)
    return message or find_last_line(
        _open_cluster(found.namespace).log(pod, container=_MAIN, tailLines=str(LAST_LINES))
    )


def find_last_line(log: Iterable[str]) -> str | None:
    """Return the last line of a log that oatflow wrote for its user, else the last that is not the launcher's."""
    lines = [line.strip() for line in log if line.strip()]
    ours = [line.removeprefix(_OUR_PREFIX) for line in lines if line.startswith(_OUR_PREFIX)]
    return next(reversed(ours or [line for line in lines if not _NOT_OURS.match(line)]), None)


def _open_cluster(namespace: str) -> Cluster:
    return Cluster.open(os.environ, namespace or None, PATIENCE_SECONDS)


def _search_namespace(cluster: Cluster, run_id: str, workflow: str) -> RunInCluster:
    pods = cluster.list_all(PODS, labelSelector=f"{_RUN}={run_id}")["items"]
    return RunInCluster(cluster.namespace, _has_workflow(cluster, workflow), pods, _describe_troubles(cluster, pods))


def _has_workflow(cluster: Cluster, name: str) -> bool | None:
    if not name:
        return None
    try:
        # A list and not a GET: its 404 means that the cluster does not know workflows at all.
        return bool(cluster.list_all(WORKFLOWS, fieldSelector=f"metadata.name={name}")["items"])
    except (NoSuchKind, Forbidden):
        return None


def _termination_message(pods: Iterable[Document], name: str) -> str | None:
    """Return what the step's own container wrote as its reason to end."""
    for pod in pods:
        if pod["metadata"]["name"] == name:
            for container in pod.get("status", {}).get("containerStatuses", ()):
                ended = container.get("state", {}).get("terminated")
                if container["name"] == _MAIN and ended:
                    return str(ended.get("message") or "").strip() or _describe_exit(ended)
    return None


def _describe_exit(ended: Document) -> str | None:
    """Return how a container ended that could write nothing; None where its log has more."""
    reason = ended.get("reason", "")
    return f"{reason} (exit code {ended.get('exitCode')})" if reason not in ("", "Error", "Completed") else None


def _describe_troubles(cluster: Cluster, steps: Sequence[Document]) -> list[str]:
    said = [str(trouble) for trouble in find_troubles(steps)]
    # A job belongs to the pod of its step, or to the Workflow that this pod belongs to.
    owners = {pod["metadata"]["uid"] for pod in steps}
    owners |= {owner["uid"] for pod in steps for owner in pod["metadata"].get("ownerReferences", ())}
    for kind in KINDS.values():
        for job in _jobs_of(cluster, kind, owners):
            said += _job_troubles(cluster, kind, job)
    return said


def _jobs_of(cluster: Cluster, kind: JobKind, owners: set[str]) -> Iterator[Document]:
    """Yield the jobs of one kind that these objects own."""
    if not owners:
        return
    try:
        found = cluster.list_all(Resource.of(kind), labelSelector=_OURS)["items"]
    except (NoSuchKind, Forbidden):
        # A cluster seldom has both kinds.
        return
    yield from (job for job in found if owners & {owner["uid"] for owner in job["metadata"].get("ownerReferences", ())})


def _job_troubles(cluster: Cluster, kind: JobKind, job: Document) -> list[str]:
    name, state = job["metadata"]["name"], kind.state(job)
    said = [f"{kind.name} {name} waits: {state.why}"] if state.phase == "waiting" and state.why else []
    return said + [str(one) for one in find_troubles(cluster.list_all(PODS, labelSelector=kind.pods(name))["items"])]
