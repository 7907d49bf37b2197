"""`oatflow doctor --host`: what an administrator checks on a cluster before the first run, one finding for each check.

What the caller may not ask the Kubernetes API is a finding of its own ("not known"), and hides no other check.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator

from oatflow.components.errors import ClusterError
from oatflow.components.jobs.cluster import Cluster, Forbidden, Resource

from ..laptop.doctor import Finding
from . import kubeflow_client
from .checks import CHECKS, Broken, Check, Installation, Site, version_of
from .probes import Probes

PATIENCE_SECONDS = 10.0
KFP_NAMESPACE = "kubeflow"
OLDEST_KFP, MADE_FOR_KFP, OLDEST_KUBERNETES = (2, 15), "2.17", (1, 27)
WHO_ASKS = Resource("/apis/authorization.k8s.io/v1", "selfsubjectaccessreviews", in_namespace=False)
# Checks that start pods, for the words about a right that is missing.
PULL = Check("images", "create jobs and list pods", "kubectl run try -n {ns} --image=IMAGE -- true", lambda _: None)
RACE = Check("store", "create jobs, list pods and get pods/log", "step 5 of manifests/README.md", lambda _: None)


def examine_cluster(wanted: Installation) -> Iterator[Finding]:
    """Yield one finding for each check, those that start pods last."""
    namespace = wanted.namespace or KFP_NAMESPACE
    many_users = namespace != KFP_NAMESPACE
    try:
        api = kubeflow_client.Cluster.connect(wanted.host, wanted.namespace)
        health = api.health()
        namespace, many_users = api.namespace or namespace, health.many_users
        yield _check_pipelines(api.host, health)
    except ClusterError as error:
        advice = "kubectl port-forward -n kubeflow service/ml-pipeline 8888:8888, and --host http://localhost:8888"
        yield Finding("Kubeflow Pipelines", False, str(error), advice)
    try:
        cluster = Cluster.open(os.environ, namespace, PATIENCE_SECONDS)
        yield _check_kubernetes(cluster)
    except ClusterError as error:
        advice = "all other checks need it: KUBECONFIG must name a kubeconfig with which `kubectl auth whoami` answers"
        yield Finding("Kubernetes", False, str(error), advice)
        return
    site = Site(wanted, cluster, namespace, many_users)
    for check in CHECKS:
        yield from _guard_check(check, site, lambda check=check: _look_at(check, site))  # type: ignore[misc]
    if not wanted.no_pods:
        yield from _run_probes(site)


def _check_pipelines(host: str, health: kubeflow_client.Health) -> Finding:
    name = "Kubeflow Pipelines"
    where = f"at {host}, {'a namespace for each user' if health.many_users else 'one namespace for all'}"
    version = version_of(health.version)
    if version is None:
        advice = f"kubectl get deployment -n kubeflow ml-pipeline -o jsonpath='{{..image}}' must say {MADE_FOR_KFP}"
        return Finding(name, None, f"answers {where}, and names no version", advice)
    if version < OLDEST_KFP:
        advice = f"upgrade it: oatflow is made for {MADE_FOR_KFP}"
        return Finding(name, False, f"{health.version} {where}", advice)
    note = "" if version == version_of(MADE_FOR_KFP) else f"; oatflow is made for {MADE_FOR_KFP}"
    return Finding(name, True, f"{health.version} {where}{note}")


def _check_kubernetes(cluster: Cluster) -> Finding:
    """Return which version answers. Raises `ClusterError` where none does, or where it does not know who asks."""
    found = cluster.read("/version") or {}
    # The version is given to anyone; this only to those whose credentials are good.
    attributes = {"namespace": cluster.namespace, "verb": "get", "resource": "pods"}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    cluster.create(WHO_ASKS, review)
    version = found.get("gitVersion", "unknown")
    is_new = (version_of(version) or OLDEST_KUBERNETES) >= OLDEST_KUBERNETES
    return Finding("Kubernetes", is_new, f"{version} at {cluster.host}", "upgrade it: oatflow needs 1.27 or newer")


def _look_at(check: Check, site: Site) -> list[Finding]:
    found = check.look(site)
    return [] if found is None else [Finding(check.name, True, found)]


def _guard_check(check: Check, site: Site, look: Callable[[], list[Finding]]) -> Iterable[Finding]:
    """Return what a check finds. What may not be asked, or gets no answer, is not known."""
    try:
        return look()
    except Broken as broken:
        return [Finding(check.name, False, broken.found, broken.advice)]
    except Forbidden as error:
        said = str(error).partition("It says: ")[2]
        if said and " cannot " not in said:
            # Not for want of a right: a quota, or an admission webhook.
            advice = "a rule of the namespace refuses this, and would refuse runs as well: change that rule"
            return [Finding(check.name, False, said, advice)]
        found, before = f"not known: no right to {check.right}", "ask your admin for that right, or for the output of"
    except ClusterError as error:
        found, before = f"not known: {error}", "run this again, or look by hand"
    wanted = site.wanted
    by_hand = check.by_hand.format(
        ns=site.namespace, account=site.account, trainer=wanted.train_service_account, s3=wanted.s3_secret,
        keys=wanted.keys_secret, queue=wanted.train_queue,
    )  # fmt: skip
    return [Finding(check.name, None, found, f"{before}: {by_hand}")]


def _run_probes(site: Site) -> Iterator[Finding]:
    """Start a pod with every image, then the doctor's job; both are deleted again."""
    wanted = site.wanted
    print(
        f"      starting pods to check the images, then the store: up to {wanted.timeout:.0f} s each (--no_pods skips "
        "them)",
        file=sys.stderr,
    )
    probes = Probes(site.cluster, wanted.timeout, tuple(wanted.image_pull_secret))
    yield from _guard_check(PULL, site, lambda: probes.pull_images(wanted.images, site.account))
    race = (wanted.images["control"], wanted.train_service_account, wanted.s3_secret, wanted.ledger)
    yield from _guard_check(RACE, site, lambda: [probes.try_store(*race)])
