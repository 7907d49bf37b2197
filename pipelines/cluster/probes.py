"""What `oatflow doctor --host` starts on a cluster for a moment: a pod with every image, and a race for the store.

Both are Jobs that meet the "restricted" pod security standard, end themselves, and are deleted as soon as their answer
is there.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

from oatflow.components.jobs.cluster import PODS, Cluster, Forbidden, Resource
from oatflow.components.jobs.pod_template import container_security, pod_security
from oatflow.components.jobs.pod_troubles import find_troubles

from ..alignment.round import PLACE, S3_KEYS
from ..laptop.doctor import Finding
from .submission import LEDGER

JOBS = Resource("/apis/batch/v1", "jobs")
EVENTS = Resource("/api/v1", "events")
POLL_SECONDS = 2.0
# Without a pod, or without a node for it, for so long: nothing will come. An autoscaler may take minutes.
POD_SECONDS = 180.0
# An image that could not be pulled for good: the first failure may pass.
HOPELESS = (
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
)
REFUSED = "the namespace would refuse {} as well: change the rule or quota that is named"
Document = dict[str, Any]


class Probes:
    """Starts pods in one namespace. `seconds`: how long each may take."""

    def __init__(self, cluster: Cluster, seconds: float, pull_secrets: tuple[str, ...]):
        self._cluster, self._seconds, self._pull_secrets = cluster, seconds, pull_secrets

    def pull_images(self, images: Mapping[str, str], account: str) -> list[Finding]:
        """Return one finding for each image: whether a node can pull it, as this account, and run `true` in it."""
        job = images_job(images, account, self._seconds, self._pull_secrets)
        with self._started(job) as name:
            pod, refused = self._wait(name)
        if pod is None:
            return [Finding("images", False, refused, REFUSED.format("the pods of steps"))]
        states = {each["name"]: each for each in pod.get("status", {}).get("containerStatuses") or ()}
        waits = "; ".join(str(trouble) for trouble in find_troubles([pod]))
        return [_was_pulled(name, image, states.get(name, {}), waits) for name, image in images.items()]

    def try_store(self, image: str, account: str, secret: str, ledger: str | None) -> Finding:
        """Return whether the store, as a training pod sees it, keeps its promise of conditional writes."""
        job = store_job(image, account, secret, ledger, self._seconds, self._pull_secrets)
        with self._started(job) as name:
            pod, refused = self._wait(name)
            said = list(self._cluster.log(pod["metadata"]["name"])) if pod is not None else []
        if pod is None:
            return Finding("store", False, refused, REFUSED.format("training pods"))
        states = pod.get("status", {}).get("containerStatuses") or [{}]
        ended = states[0].get("state", {}).get("terminated")
        if ended is not None:
            return _race_writes(ended, said)
        waits = "; ".join(str(trouble) for trouble in find_troubles([pod]))
        last = said[-1] if said else "it wrote nothing"
        late = f"the doctor's pod has not ended within {self._seconds:.0f} s: {last}"
        return Finding("store", False, waits or late, "fix what it waits for, and run this again")

    @contextmanager
    def _started(self, job: Document) -> Any:
        """Create a job; delete it, and its pods, whatever happens."""
        made = self._cluster.create(JOBS, job)
        assert made is not None, "its name is random"
        try:
            yield made["metadata"]["name"]
        finally:
            self._cluster.delete(JOBS, made)

    def _wait(self, job: str) -> tuple[Document | None, str]:
        """Return the job's pod when all of its containers have ended or never will, or as it is when time is up."""
        began = time.monotonic()
        while True:
            pods = self._cluster.list_all(PODS, labelSelector=f"job-name={job}")["items"]
            waited = time.monotonic() - began
            patience = POD_SECONDS if pods and _finds_no_node(pods[0]) else self._seconds
            if pods and (_is_decided(pods[0]) or waited >= patience):
                return pods[0], ""
            if not pods:
                refused = self._refusal(job)
                if refused or waited >= min(POD_SECONDS, self._seconds):
                    return None, refused or f"the job {job} had no pod for {waited:.0f} s"
            time.sleep(POLL_SECONDS)

    def _refusal(self, job: str) -> str:
        """Return why the job's controller cannot create its pod, where an event says so and may be read."""
        try:
            events = self._cluster.list_all(EVENTS, fieldSelector=f"involvedObject.name={job}")["items"]
        except Forbidden:
            return ""
        return next((each.get("message", "") for each in reversed(events) if each.get("reason") == "FailedCreate"), "")


def images_job(images: Mapping[str, str], account: str, seconds: float, pull_secrets: tuple[str, ...] = ()) -> Document:
    """Describe a job whose one pod runs `true` in each image."""
    containers = [
        {"name": name, "image": image, "command": ["true"], **_set_small("10m", "32Mi", "100m", "64Mi")}
        for name, image in images.items()
    ]
    return _make_job("images", {"containers": containers, **_name_probe(account, pull_secrets)}, seconds)


def store_job(
    image: str, account: str, secret: str, ledger: str | None, seconds: float, pull_secrets: tuple[str, ...] = ()
) -> Document:
    """Describe the doctor's job, as manifests/examples/doctor does, with this image, account, secret and ledger."""
    place = {"configMapKeyRef": {"name": PLACE, "key": LEDGER}}
    container = {
        "name": "doctor",
        "image": image,
        "command": ["oatflow", "doctor", "--store-only", "--ledger", f"$({LEDGER})"],
        "env": [
            {"name": "HOME", "value": "/tmp"},
            {"name": "OATFLOW_HOME", "value": "/tmp/oatflow"},
            {"name": LEDGER, "value": ledger} if ledger else {"name": LEDGER, "valueFrom": place},
            {"name": "AWS_REGION",
             "valueFrom": {"configMapKeyRef": {"name": PLACE, "key": "AWS_REGION", "optional": True}}},
            *({"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
              for key, variable in S3_KEYS.items()),
        ],
        **_set_small("250m", "512Mi", "1", "2Gi"),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip
    volumes = [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]
    return _make_job(
        "store", {"containers": [container], "volumes": volumes, **_name_probe(account, pull_secrets)}, seconds
    )


def _make_job(what: str, spec: Document, seconds: float) -> Document:
    labels = {"app.kubernetes.io/name": "oatflow", "app.kubernetes.io/component": "doctor"}
    # A mesh's sidecar would keep the job alive for ever.
    no_sidecar = {"sidecar.istio.io/inject": "false"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"oatflow-doctor-{what}-{secrets.token_hex(3)}", "labels": labels},
        "spec": {
            "backoffLimit": 0,
            # It ends itself if the doctor was killed before it could delete it; later than the doctor gives up on it.
            "activeDeadlineSeconds": int(seconds) + 60,
            "ttlSecondsAfterFinished": 600,
            "template": {"metadata": {"labels": labels | no_sidecar, "annotations": no_sidecar}, "spec": spec},
        },
    }


def _name_probe(account: str, pull_secrets: tuple[str, ...]) -> Document:
    return {
        "restartPolicy": "Never",
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        **({"imagePullSecrets": [{"name": name} for name in pull_secrets]} if pull_secrets else {}),
    }


def _set_small(cpu: str, memory: str, most_cpu: str, most_memory: str) -> Document:
    return {
        "resources": {
            "requests": {"cpu": cpu, "memory": memory},
            "limits": {"cpu": most_cpu, "memory": most_memory},
        },
        "securityContext": container_security(),
    }


def _is_decided(pod: Document) -> bool:
    """Whether every container of a pod has ended, or waits for what will not come."""
    states = [each.get("state", {}) for each in pod.get("status", {}).get("containerStatuses") or ()]
    if pod.get("status", {}).get("phase") == "Failed" and not states:
        return True
    hopeless = ["terminated" in state or state.get("waiting", {}).get("reason") in HOPELESS for state in states]
    return len(hopeless) == len(pod["spec"]["containers"]) and all(hopeless)


def _finds_no_node(pod: Document) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "PodScheduled" and each["status"] == "False" for each in conditions)


def _was_pulled(name: str, image: str, found: Document, waits: str) -> Finding:
    check, state = f"image {name}", found.get("state", {})
    ended, waiting = state.get("terminated"), state.get("waiting", {})
    if ended is not None and ended.get("exitCode") == 0:
        return Finding(check, True, f"{image} can be pulled and run")
    if ended is not None:
        said = f"{ended.get('reason', '')} {ended.get('message', '')}".strip()
        advice = "push an image of oatflow that is built for these nodes (images/README.md)"
        return Finding(check, False, f"{image} does not run: {said}", advice)
    said = f"{waiting.get('reason', '')}: {waiting.get('message', '')}".strip(": ")
    if waiting.get("reason") in HOPELESS:
        advice = (
            "--registry says where images are, --cpu asks for those without CUDA (images/README.md says how to push "
            "them); where the registry wants a login: --image_pull_secret"
        )
        return Finding(check, False, f"{image} cannot be pulled: {said}", advice)
    why = waits or said
    return Finding(
        check,
        None,
        f"not known: {image} was not pulled in time{f' ({why})' if why else ''}",
        "give a larger --timeout if the image is just large; otherwise fix what its pod waits for",
    )


def _race_writes(ended: Document, said: list[str]) -> Finding:
    """Read the verdict that the doctor printed in its pod."""
    verdict = next((line for line in said if line[6:].startswith("S3: ")), "")
    if ended.get("exitCode") == 0 and verdict.startswith("ok"):
        return Finding("store", True, verdict[6:].removeprefix("S3: "))
    advice = next((line.partition("-> ")[2] for line in said if line.strip().startswith("-> ")), "")
    last = verdict[6:].removeprefix("S3: ") or (said[-1].removeprefix("oatflow: ") if said else "")
    reason = f"the doctor's pod ended with exit code {ended.get('exitCode')}, {ended.get('reason', 'without a reason')}"
    return Finding("store", False, last or reason, advice or "step 5 of manifests/README.md says which stores are safe")
