"""What no manifest of ours may do. Pure: a manifest goes in, sentences about what is wrong come out.

Pods are found wherever they are described: anything with a list of `containers` is one, in a Deployment as in the
replicas of a PyTorchJob or in the patches of a TrainJob, and in kinds that nobody had thought of here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Manifest = dict[str, Any]

# Kinds that run pods: one in which no pod can be seen is not taken to be harmless.
RUNS_PODS = {
    "CronJob", "DaemonSet", "Deployment", "Job", "JobSet", "Pod", "PyTorchJob", "ReplicaSet", "StatefulSet", "TrainJob",
}  # fmt: skip
# What the "restricted" Pod Security Standard lets a pod mount.
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
# Bindings that reach beyond a namespace, by name: there are none, and whoever adds one says so here.
CLUSTER_WIDE_BINDINGS: frozenset[str] = frozenset()
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD)(_|$)", re.IGNORECASE)


def problems(manifest: Manifest) -> list[str]:
    """Say what is wrong with a manifest; nothing, where it may be applied."""
    found = [*_secret(manifest), *_rules(manifest), *_binding(manifest)]
    pods = list(pod_specs(manifest))
    if not pods and manifest.get("kind") in RUNS_PODS:
        found.append("runs pods, but describes none: what they may do is not seen")
    for pod in pods:
        found += _pod(pod)
    name = (manifest.get("metadata") or {}).get("name", "without a name")
    return [f"{manifest.get('kind')} {name}: {problem}" for problem in found]


def pod_specs(manifest: Manifest) -> Iterator[Manifest]:
    """Find every pod's spec in a manifest, as its containers will run."""
    for spec in _with_containers(manifest):
        yield _as_trained(spec, manifest["spec"].get("trainer") or {}) if manifest.get("kind") == "TrainJob" else spec


def _with_containers(value: Any) -> Iterator[Manifest]:
    if isinstance(value, dict):
        if isinstance(value.get("containers"), list):
            yield value
        for each in value.values():
            yield from _with_containers(each)
    elif isinstance(value, list):
        for each in value:
            yield from _with_containers(each)


def _as_trained(spec: Manifest, trainer: Manifest) -> Manifest:
    """Put what a TrainJob says once, of its trainer, into the container that it holds for, which is named node."""
    given = {"image": trainer.get("image"), "resources": trainer.get("resourcesPerNode"), "env": trainer.get("env")}
    given = {field: value for field, value in given.items() if value}
    containers = [each | given if each.get("name") == "node" else each for each in spec["containers"]]
    return spec | {"containers": containers}


def _pod(spec: Manifest) -> Iterator[str]:
    for shared in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(shared):
            yield f"{shared}: shares a namespace of the host's"
    for volume in spec.get("volumes") or []:
        for kind in sorted(set(volume) - {"name"} - VOLUMES):
            yield f"volume {volume.get('name')}: {kind} is not allowed"
    security = spec.get("securityContext") or {}
    for field in CONTAINERS:
        for container in spec.get(field) or []:
            for problem in _container(container, security):
                yield f"container {container.get('name')}: {problem}"


def _container(container: Manifest, pod: Manifest) -> Iterator[str]:
    yield from _image(container.get("image") or "")
    yield from _resources(container.get("resources") or {})
    yield from _privileges(container.get("securityContext") or {})
    yield from _user(pod | (container.get("securityContext") or {}))
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "takes a port of the host's"
    for variable in container.get("env") or []:
        if _SECRET.search(variable["name"]) and variable.get("value"):
            yield f"{variable['name']} is written out; refer to a secret"


def _image(image: str) -> Iterator[str]:
    name, _, digest = image.partition("@")
    # A colon before the last slash is the registry's port.
    tag = name.rpartition("/")[2].partition(":")[2]
    if not image:
        yield "no image"
    elif tag == "latest" or not (tag or digest):
        yield f"image {image}: name a version, not latest"


def _resources(resources: Manifest) -> Iterator[str]:
    for field in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            if not (resources.get(field) or {}).get(resource):
                yield f"no {field}.{resource}"


def _privileges(security: Manifest) -> Iterator[str]:
    """Check what only a container can say of itself."""
    capabilities = security.get("capabilities") or {}
    if security.get("privileged"):
        yield "privileged"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem is not true"
    if "ALL" not in (capabilities.get("drop") or []):
        yield "does not drop ALL capabilities"
    if capabilities.get("add"):
        yield f"adds capabilities {', '.join(capabilities['add'])}"
    if security.get("procMount", "Default") != "Default":
        yield "procMount is not Default"


def _user(security: Manifest) -> Iterator[str]:
    """Check what a container takes over from its pod, where it does not say otherwise."""
    if security.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if security.get("runAsUser") == 0:
        yield "runAsUser is 0"
    if (security.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "seccompProfile is not RuntimeDefault"


def _secret(manifest: Manifest) -> Iterator[str]:
    if manifest.get("kind") == "Secret" and (manifest.get("data") or manifest.get("stringData")):
        yield "a secret with its values; document how to create it instead"


def _rules(manifest: Manifest) -> Iterator[str]:
    if manifest.get("kind") not in ("Role", "ClusterRole"):
        return
    for rule in manifest.get("rules") or []:
        for field in ("apiGroups", "resources", "verbs", "nonResourceURLs"):
            if any("*" in value for value in rule.get(field) or []):
                yield f"a wildcard in {field}"
    if manifest.get("aggregationRule"):
        yield "takes over the rules of others"


def _binding(manifest: Manifest) -> Iterator[str]:
    kind, name = manifest.get("kind"), (manifest.get("metadata") or {}).get("name")
    if kind == "ClusterRoleBinding" and name not in CLUSTER_WIDE_BINDINGS:
        yield "holds in the whole cluster"
    if kind == "RoleBinding" and manifest["roleRef"]["kind"] != "Role":
        yield f"gives the cluster's role {manifest['roleRef']['name']}, whose rules are not seen here"
