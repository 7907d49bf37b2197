"""The checks of `oatflow doctor --host` that only read, one function each.

A check returns what it found, or None where it does not apply, and raises `Broken` with what to do. `Forbidden` is
left to the caller, who knows which right the check needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from oatflow.components.images import CONTROL, ORACLE, SAMPLER, TRAINER
from oatflow.components.jobs.cluster import Cluster, Resource
from oatflow.components.jobs.job_kind import JobKind
from oatflow.components.jobs.registry import KINDS

from ..alignment.build import Build
from ..alignment.round import PLACE, S3_KEYS
from .submission import LEDGER

# Up to this version SeaweedFS lets several racing writers win.
UNSAFE_SEAWEEDFS, SAFE_SEAWEEDFS = (4, 16), "4.48"
OLDEST_TRAINER = (2, 2)
CONTROLLERS = {"PyTorchJob": "training-operator", "TrainJob": "trainer-controller-manager"}
RUNTIME = "torch-distributed"
JOB_VERBS = ("create", "delete", "get", "list", "patch", "watch")
REVIEWS = Resource("/apis/authorization.k8s.io/v1", "localsubjectaccessreviews")
APPLY = "kubectl apply -k manifests/overlays/... (step 4 of manifests/README.md)"
SECRETS = "step 3 of manifests/README.md has the command"
# What every overlay makes beside its role and its config map, which have checks of their own.
APPLIED = {
    "/apis/networking.k8s.io/v1/{}/networkpolicies": "oatflow-trainer",
    "/apis/policy/v1/{}/poddisruptionbudgets": "oatflow-trainer",
}


class Broken(Exception):
    """A check failed: what was found, and what to do."""

    def __init__(self, found: str, advice: str):
        super().__init__(found)
        self.found, self.advice = found, advice


@dataclass(frozen=True, slots=True)
class Installation:
    """How runs are going to be submitted, by the names of the flags that say so."""

    host: str | None
    namespace: str | None
    ledger: str | None
    service_account: str | None
    train_service_account: str
    s3_secret: str
    keys_secret: str
    train_backend: str | None
    train_queue: str | None
    gpu_resource: str
    cpu: bool
    registry: str
    image_pull_secret: list[str]
    no_pods: bool
    timeout: float

    @property
    def images(self) -> dict[str, str]:
        """The images that runs pull, by their short names."""
        build = Build(gpu=not self.cpu, registry=self.registry)
        shipped = (CONTROL, SAMPLER, ORACLE, TRAINER)
        return {name.rpartition("/")[2].partition(":")[0]: build.image(name) for name in shipped}


@dataclass(slots=True)
class Site:
    """The cluster that is examined, and what earlier checks found out about it."""

    wanted: Installation
    cluster: Cluster
    namespace: str
    many_users: bool
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def account(self) -> str:
        """The account that the steps of a run are."""
        return self.wanted.service_account or ("default-editor" if self.many_users else "pipeline-runner")

    @property
    def ledger(self) -> str | None:
        """The address below which the ledgers are."""
        return self.wanted.ledger or self.config.get(LEDGER)

    def get(self, path: str) -> dict[str, Any] | None:
        """Return the answer for a path, in which {} is the namespace; None where there is nothing."""
        return self.cluster.read(path.format(f"namespaces/{self.namespace}"))

    def items(self, path: str) -> list[dict[str, Any]]:
        """Return the objects that a path lists."""
        return list((self.get(path) or {"items": ()})["items"])

    def serves(self, kind: JobKind) -> bool:
        """Whether the cluster knows a kind of job; anyone who is known to it may ask that."""
        listed = self.get(f"/apis/{kind.group}/{kind.version}") or {}
        return any(each["name"] == kind.plural for each in listed.get("resources", ()))

    def may(self, account: str, verb: str, what: str) -> bool:
        """Whether an account of the namespace may do something; `what`: a resource as RESOURCE/PART.GROUP."""
        resource, _, group = what.partition(".")
        resource, _, part = resource.partition("/")
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": resource, "subresource": part}
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated"]
        who = {"user": f"system:serviceaccount:{self.namespace}:{account}", "groups": groups}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": self.namespace},
            "spec": {**who, "resourceAttributes": asked},
        }
        answer = self.cluster.create(REVIEWS, review)
        return bool(answer and answer["status"]["allowed"])


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, the right that it takes, the command that answers it by hand, and what does it."""

    name: str
    right: str
    by_hand: str
    look: Callable[[Site], str | None]


def check_namespace(site: Site) -> str:
    """Check that the namespace is there."""
    found = site.get("/api/v1/{}")
    if found is None:
        how = "have a Profile made for it" if site.many_users else "create it"
        raise Broken(f"{site.namespace} is not there", f"name the right one with --namespace, or {how}")
    level = (found["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce")
    return f"{site.namespace}, pod security {level!r} is enforced" if level else site.namespace


def check_pytorchjob(site: Site) -> str:
    """Check that the training operator is there, unless another kind of job is enough."""
    return _if_needed(site, "pytorchjob", _check_kind)


def check_trainjob(site: Site) -> str:
    """Check that Kubeflow Trainer and what it needs are there, unless another kind of job is enough."""
    return _if_needed(site, "trainjob", _check_trainer)


def _if_needed(site: Site, backend: str, look: Callable[[Site, JobKind], str]) -> str:
    """Do a check of a kind of job, which fails only if runs need that kind, or if it is there and broken."""
    kind, wanted = KINDS[backend], site.wanted.train_backend
    try:
        return look(site, kind)
    except Broken as broken:
        others = [other for name, other in KINDS.items() if name != backend]
        is_needed = site.serves(kind) or not any(site.serves(other) for other in others)
        if wanted == backend or (wanted is None and is_needed):
            raise
        return f"{broken.found}; only runs with train_backend {backend} need it"


def _check_trainer(site: Site, kind: JobKind) -> str:
    said = _check_kind(site, kind)
    if site.get("/apis/jobset.x-k8s.io") is None:
        raise Broken(f"{said}, and JobSet is not there", "install JobSet, which Kubeflow Trainer needs")
    if site.get(f"/apis/{kind.group}/{kind.version}/clustertrainingruntimes/{RUNTIME}") is None:
        raise Broken(
            f"{said}, and there is no ClusterTrainingRuntime {RUNTIME}",
            "install the runtimes of Kubeflow Trainer, or name yours in every run with train_runtime",
        )
    return f"{said}, with the runtime {RUNTIME}"


def _check_kind(site: Site, kind: JobKind) -> str:
    if site.serves(kind):
        return _check_controller(site, kind)
    said = f"the cluster does not know {kind.plural}.{kind.group}/{kind.version}"
    raise Broken(said, f"install {kind.operator}, or choose another train_backend")


def _check_controller(site: Site, kind: JobKind) -> str:
    """Check that what acts on the jobs is running, in a version that oatflow knows."""
    everywhere = site.items("/apis/apps/v1/deployments")
    found = next((each for each in everywhere if CONTROLLERS[kind.name] in each["metadata"]["name"]), None)
    said = f"{kind.group}/{kind.version} is served"
    if found is None:
        raise Broken(f"{said}, and no deployment {CONTROLLERS[kind.name]} acts on it", f"install {kind.operator}")
    namespace, name = found["metadata"]["namespace"], found["metadata"]["name"]
    image = _describe_image(found)
    said = f"{said}, {namespace}/{name} is ready ({image.rpartition('/')[2]})"
    if not _is_available(found):
        raise Broken(f"{namespace}/{name} is not ready", f"kubectl describe deployment -n {namespace} {name}")
    if kind.name == "TrainJob" and (version_of(image) or OLDEST_TRAINER) < OLDEST_TRAINER:
        raise Broken(said, f"upgrade it: oatflow needs {kind.operator}")
    return said


def check_applied(site: Site) -> str:
    """Check that an overlay was applied."""
    account = site.wanted.train_service_account
    wanted = {"/api/v1/{}/serviceaccounts": account, **APPLIED}
    missing = [f"{path.rpartition('/')[2]}/{name}" for path, name in wanted.items() if not site.get(f"{path}/{name}")]
    if missing:
        raise Broken(f"not in namespace {site.namespace}: {', '.join(missing)}", APPLY)
    return f"account {account}, network policy and disruption budget are there"


def check_rights(site: Site) -> str:
    """Check that the steps' account may do what steps do."""
    wanted = site.wanted.train_backend
    kinds = [kind for backend, kind in KINDS.items() if wanted in (None, backend) and site.serves(kind)]
    if site.get(f"/api/v1/{{}}/serviceaccounts/{site.account}") is None:
        raise Broken(
            f"there is no service account {site.account} in namespace {site.namespace}",
            "name the one that steps run as with --service_account: pipeline-runner in Kubeflow Pipelines alone, "
            "default-editor in a profile",
        )
    refused = [f"{verb} {what}" for verb, what in needed_rights(kinds) if not site.may(site.account, verb, what)]
    if refused:
        advice = f"the RoleBinding oatflow-launcher must give {site.account} the Role oatflow-launcher: {APPLY}"
        raise Broken(f"{site.account} may not {', '.join(refused)}", advice)
    return f"{site.account} may do all that steps do with {' and '.join(kind.plural for kind in kinds) or 'pods'}"


def needed_rights(kinds: list[JobKind]) -> list[tuple[str, str]]:
    """Return what steps ask the Kubernetes API for, as verb and RESOURCE/PART.GROUP."""
    jobs = [(verb, f"{kind.plural}.{kind.group}") for kind in kinds for verb in JOB_VERBS]
    return [*jobs, ("list", "pods"), ("watch", "pods"), ("get", "pods/log")]


def check_trainer_account(site: Site) -> str:
    """Check that training pods may not read secrets."""
    account = site.wanted.train_service_account
    if site.may(account, "get", "secrets"):
        raise Broken(
            f"{account} may read secrets in namespace {site.namespace}",
            "training pods need no right at all; take it out of the binding that gives it: "
            f"kubectl get rolebindings,clusterrolebindings -A -o wide | grep -E '{account}|system:serviceaccounts'",
        )
    return f"{account} may not read secrets"


def check_store_keys(site: Site) -> str:
    """Check that the secret with the store's keys has both."""
    name = site.wanted.s3_secret
    found = site.get(f"/api/v1/{{}}/secrets/{name}")
    if found is None:
        where = f"there is no secret {name} in namespace {site.namespace}"
        raise Broken(where, f"create it, or name another with --s3_secret: {SECRETS}")
    data = found.get("data") or {}
    missing = [f"{key} is {'empty' if key in data else 'missing'}" for key in S3_KEYS if not data.get(key)]
    if missing:
        raise Broken(f"in the secret {name} {' and '.join(missing)}", f"create it anew: {SECRETS}")
    return f"the secret {name} has {' and '.join(S3_KEYS)}"


def check_other_keys(site: Site) -> str:
    """Say which other keys there are; none is needed by every run."""
    name = site.wanted.keys_secret
    found = site.get(f"/api/v1/{{}}/secrets/{name}")
    if found is None:
        return f"there is no secret {name}; only gated models, oracles with a key and tracking need it"
    return f"the secret {name} has {', '.join(sorted(found.get('data') or {})) or 'no key'}"


def check_ledger(site: Site) -> str:
    """Check the address of the ledgers, which the config map holds."""
    if not site.wanted.ledger:
        found = site.get(f"/api/v1/{{}}/configmaps/{PLACE}")
        site.config = (found or {}).get("data") or {}
    if not site.ledger:
        raise Broken(f"{LEDGER} is not in a config map {PLACE} of namespace {site.namespace}", APPLY)
    where = site.ledger.partition("?")[0]
    if not re.fullmatch(r"s3://[^/@]+/[^@]+", where) or "@" in site.ledger:
        # Not repeated: there may be keys in it.
        raise Broken(f"{LEDGER} is no address of a ledger", "write s3://bucket/prefix?endpoint=http://host:port")
    if where.startswith("s3://example-bucket/"):
        raise Broken(f"{where} is the example", "put your bucket into manifests/components/aws, and apply the overlay")
    if site.many_users and service_of(site.ledger) and f"/private/{site.namespace}/" not in f"{where}/":
        advice = "a profile may write nowhere else that lasts: apply the overlay profile or gpu-pool"
        raise Broken(f"{where} is not below private/{site.namespace}/", advice)
    return site.ledger


def check_store_service(site: Site) -> str | None:
    """Check the service that the ledgers' address names, and the version of SeaweedFS beside it."""
    service = service_of(site.ledger or "")
    if service is None:
        return None
    name, namespace = service
    if site.get(f"/api/v1/namespaces/{namespace}/services/{name}") is None:
        raise Broken(
            f"there is no service {name} in namespace {namespace}",
            f"kubectl get service -n {namespace}; put the right name into manifests/components/seaweedfs",
        )
    found = site.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/seaweedfs")
    if found is None:
        return f"{namespace}/{name} is there"
    image = _describe_image(found)
    if (version_of(image) or (99, 0)) <= UNSAFE_SEAWEEDFS:
        container = found["spec"]["template"]["spec"]["containers"][0]["name"]
        raise Broken(
            f"{image} lets several racing writers win, as all versions up to 4.16 do",
            f"back its volume up, then: kubectl set image -n {namespace} deployment/seaweedfs "
            f"{container}=chrislusf/seaweedfs:{SAFE_SEAWEEDFS}",
        )
    if not _is_available(found):
        raise Broken(f"{namespace}/seaweedfs is not ready", f"kubectl describe deployment -n {namespace} seaweedfs")
    return f"{namespace}/{name}, {image}"


def service_of(ledger: str) -> tuple[str, str] | None:
    """Return name and namespace of the service of the cluster that an address names, if it names one."""
    endpoint = parse_qs(urlsplit(ledger).query).get("endpoint", [""])[-1]
    parts = (urlsplit(endpoint).hostname or "").split(".")
    return (parts[0], parts[1]) if len(parts) == 2 or parts[2:3] == ["svc"] else None


def check_quota(site: Site) -> str:
    """Check that no quota of the namespace is used up."""
    quotas = site.items("/api/v1/{}/resourcequotas")
    full = [
        f"{resource} ({status['used'][resource]} of {hard}, {quota['metadata']['name']})"
        for quota in quotas
        for status in [quota.get("status") or {}]
        for resource, hard in (status.get("hard") or {}).items()
        if _is_for_pods(resource)
        and _read_number((status.get("used") or {}).get(resource, "0")) >= _read_number(hard) > 0
    ]
    if full:
        advice = f"pods wait for it; a larger quota, or: kubectl describe resourcequota -n {site.namespace}"
        raise Broken(f"used up: {', '.join(full)}", advice)
    names = ", ".join(quota["metadata"]["name"] for quota in quotas)
    return f"{names}: not used up" if names else "none"


def _is_for_pods(resource: str) -> bool:
    """Whether a quota's resource is one that the pods and jobs of a run take."""
    counted = ("cpu", "memory", "pods", "count/pods", *(f"count/{kind.plural}.{kind.group}" for kind in KINDS.values()))
    return resource in counted or (resource.startswith(("requests.", "limits.")) and "storage" not in resource)


def check_queue(site: Site) -> str | None:
    """Check that the queue that trainings wait in is there and active."""
    name = site.wanted.train_queue
    if not name:
        return None
    group = site.get("/apis/kueue.x-k8s.io")
    if group is None:
        raise Broken("Kueue is not there", "install Kueue, or leave out train_queue")
    found = site.get(f"/apis/{group['preferredVersion']['groupVersion']}/{{}}/localqueues/{name}")
    if found is None:
        advice = f"kubectl get localqueue -n {site.namespace}; the overlay gpu-pool makes one, oatflow"
        raise Broken(f"there is no local queue {name} in namespace {site.namespace}", advice)
    behind = found["spec"]["clusterQueue"]
    conditions = (found.get("status") or {}).get("conditions") or ()
    active = next((each for each in conditions if each["type"] == "Active"), None)
    if active is not None and active["status"] != "True":
        said = f"the local queue {name} is not active: {active.get('message', '')}"
        raise Broken(said, f"kubectl describe clusterqueue {behind}")
    return f"{name}, of the cluster queue {behind}"


def check_gpus(site: Site) -> str:
    """Check that nodes which take pods offer GPUs, and say how these are tainted."""
    resource = site.wanted.gpu_resource
    if site.wanted.cpu:
        return "not looked for (--cpu)"
    nodes = site.items("/api/v1/nodes")
    having = [node for node in nodes if int((node["status"].get("allocatable") or {}).get(resource, "0"))]
    if not having:
        advice = "install the device plugin on the nodes with GPUs; for a cluster without GPUs give --cpu"
        raise Broken(f"none of {len(nodes)} nodes offers {resource}", advice)
    usable = [node for node in having if _takes_pods(node)]
    if not usable:
        names = [node["metadata"]["name"] for node in having]
        advice = f"kubectl describe node {names[0]}; kubectl uncordon {names[0]}"
        raise Broken(f"no node with {resource} takes pods: {', '.join(names)}", advice)
    count = sum(int(node["status"]["allocatable"][resource]) for node in usable)
    taints = sorted({_describe_taint(each) for node in usable for each in node["spec"].get("taints") or ()})
    said = f"{count} of {resource} on {len(usable)} node{'s' if len(usable) > 1 else ''}"
    if taints:
        said += f", tainted {', '.join(taints)}: give runs sampler_tolerations and train_tolerations"
    return said


def _describe_taint(taint: Mapping[str, str]) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def _takes_pods(node: Mapping[str, Any]) -> bool:
    conditions = node["status"].get("conditions") or ()
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return is_ready and not node["spec"].get("unschedulable")


def _describe_image(deployment: Mapping[str, Any]) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def _is_available(deployment: Mapping[str, Any]) -> bool:
    return bool((deployment.get("status") or {}).get("availableReplicas"))


def version_of(text: str) -> tuple[int, int] | None:
    """Return the first two numbers of a version, or of an image's tag; None where there are none."""
    found = re.match(r"v?(\d+)\.(\d+)", text.partition("@")[0].rpartition("/")[2].rpartition(":")[2])
    return (int(found[1]), int(found[2])) if found else None


def _read_number(quantity: str) -> float:
    """Return a quantity of Kubernetes as a number."""
    found = re.fullmatch(r"([0-9.]+(?:[eE][0-9]+)?)([a-zA-Z]*)", quantity)
    assert found is not None, quantity
    decimal = {unit: 1000.0**power for power, unit in enumerate("kMGTPE", 1)}
    binary = {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", 1)}
    return float(found[1]) * {"": 1.0, "m": 1e-3, **decimal, **binary}[found[2]]


_REVIEW = "create localsubjectaccessreviews"
CHECKS = (
    Check("namespace", "get namespaces", "kubectl get namespace {ns}", check_namespace),
    Check(
        "PyTorchJob", "list deployments in all namespaces", "kubectl get deployment -A | grep training-operator",
        check_pytorchjob,
    ),
    Check(
        "TrainJob", "list deployments in all namespaces and get clustertrainingruntimes",
        "kubectl get deployment -A | grep trainer; kubectl get clustertrainingruntime", check_trainjob,
    ),
    Check("manifests", "get what an overlay makes", "kubectl get -k manifests/overlays/...", check_applied),
    Check(
        "account", f"{_REVIEW} and get serviceaccounts",
        "kubectl auth can-i create pytorchjobs.kubeflow.org -n {ns} --as system:serviceaccount:{ns}:{account}",
        check_rights,
    ),
    Check(
        "training account", _REVIEW, "kubectl auth can-i get secrets -n {ns} --as system:serviceaccount:{ns}:{trainer}",
        check_trainer_account,
    ),
    Check("store's keys", "get secrets", "kubectl describe secret -n {ns} {s3}", check_store_keys),
    Check("other keys", "get secrets", "kubectl describe secret -n {ns} {keys}", check_other_keys),
    Check("ledger", "get configmaps", f"kubectl get configmap -n {{ns}} {PLACE} -o yaml", check_ledger),
    Check(
        "store's service", "get services and deployments where the store is",
        "kubectl get service,deployment -n kubeflow -o wide", check_store_service,
    ),
    Check("quota", "list resourcequotas", "kubectl describe resourcequota -n {ns}", check_quota),
    Check("queue", "get localqueues", "kubectl get localqueue -n {ns} {queue}", check_queue),
    Check("GPUs", "list nodes", "kubectl describe nodes | grep -E 'Name:|Taints:|nvidia.com/gpu'", check_gpus),
)  # fmt: skip
