"""Who owns a training job in the cluster: Kubernetes deletes the job when its owner is gone.

The owner is the Workflow of the run, and not the pod of the step that watches the job: such a pod may be evicted, and
the one that is started in its place carries the running job on.
"""

from __future__ import annotations

from collections.abc import Mapping

from .cluster import PODS, Cluster, Forbidden
from .job_kind import Document

_WORKFLOW = "Workflow"


def find_owners(cluster: Cluster, environment: Mapping[str, str]) -> list[Document]:
    """Return the ownerReferences of the jobs of this step; outside of a pod there are none.

    The pod's own reference to its Workflow has the Workflow's uid, so nothing but the pod need be read. Where it cannot
    be, or is no Workflow's, the pod is the owner, and the log says so.
    """
    name, uid = environment.get("POD_NAME"), environment.get("POD_UID")
    if not name or not uid:
        return []
    try:
        workflow = _find_workflow(cluster, name, uid)
    except Forbidden as error:
        workflow, why = None, str(error)
    else:
        why = f"pod {name} in namespace {cluster.namespace} belongs to no Workflow"
    if workflow is not None:
        return [_owner_reference(workflow["apiVersion"], _WORKFLOW, workflow["name"], workflow["uid"])]
    print(
        f"the training job will belong to this step's pod, and will end if that pod is evicted: {why}",
        flush=True,
    )
    return [_owner_reference("v1", "Pod", name, uid)]


def _find_workflow(cluster: Cluster, pod: str, uid: str) -> Document | None:
    """Return the reference of this step's pod to its Workflow. A list of one is what the Role grants."""
    for found in cluster.list_all(PODS, fieldSelector=f"metadata.name={pod}")["items"]:
        if found["metadata"]["uid"] == uid:
            owners = found["metadata"].get("ownerReferences", ())
            return next((owner for owner in owners if owner["kind"] == _WORKFLOW), None)
    return None


def _owner_reference(version: str, kind: str, name: str, uid: str) -> Document:
    owner = {"apiVersion": version, "kind": kind, "name": name, "uid": uid}
    return owner | {"controller": False, "blockOwnerDeletion": False}
