"""A Kubernetes API server to be examined: objects by their paths, rights, and jobs whose pods end as a test says.

It answers in the words of a real one where something is not there (404) or not allowed (403), reviews access, and takes
a Job only if Kubernetes' own schema does, to the last field.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import kubernetes_validate
import yaml

TOKEN = "an-admins-token"
KEYS = {"accesskey": "bWluaW8=", "secretkey": "aGlkZGVu"}
STEPS, TRAINER = "pipeline-runner", "oatflow-trainer"
JOB_VERBS = ("create", "delete", "get", "list", "patch", "watch")
PROMISE = "s3://mlpipeline/private/kubeflow/oatflow answers; of 8 racing writers one wins"


def deployment(image, ready=1, container="server"):
    status = {"replicas": 1, "readyReplicas": ready, "availableReplicas": ready} if ready else {"replicas": 1}
    return {"spec": {"template": {"spec": {"containers": [{"name": container, "image": image}]}}}, "status": status}


def node(gpus="0", taints=(), ready="True", **spec):
    allocatable = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": gpus}
    conditions = [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}]
    return {"spec": {"taints": list(taints), **spec}, "status": {"allocatable": allocatable, "conditions": conditions}}


def cluster_in_order(namespace="kubeflow"):
    """The objects of a cluster on which every check succeeds, by path."""
    here = f"/namespaces/{namespace}"
    kfp = "/namespaces/kubeflow"
    ledger = f"s3://mlpipeline/private/{namespace}/oatflow?endpoint=http://seaweedfs.kubeflow:9000"
    return {
        f"/api/v1{here}": {"metadata": {"labels": {"kubernetes.io/metadata.name": namespace}}},
        f"/api/v1{here}/serviceaccounts/{STEPS}": {},
        f"/api/v1{here}/serviceaccounts/{TRAINER}": {},
        f"/api/v1{here}/secrets/mlpipeline-minio-artifact": {"data": dict(KEYS)},
        f"/api/v1{here}/configmaps/oatflow-config": {"data": {"OATFLOW_LEDGER": ledger, "AWS_REGION": "us-east-1"}},
        f"/apis/networking.k8s.io/v1{here}/networkpolicies/oatflow-trainer": {},
        f"/apis/policy/v1{here}/poddisruptionbudgets/oatflow-trainer": {},
        f"/api/v1{kfp}/services/seaweedfs": {},
        f"/apis/apps/v1{kfp}/deployments/seaweedfs": deployment("chrislusf/seaweedfs:4.48", container="seaweedfs"),
        f"/apis/apps/v1{kfp}/deployments/training-operator": deployment("kubeflow/training-operator:v1.9.0"),
        "/apis/apps/v1/namespaces/kubeflow-system/deployments/kubeflow-trainer-controller-manager": deployment(
            "ghcr.io/kubeflow/trainer/trainer-controller-manager:v2.3.0"
        ),
        "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/torch-distributed": {},
        "/api/v1/nodes/gpu-1": node("4", [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]),
        "/api/v1/nodes/plain": node(),
    }  # fmt: skip


def discovery():
    """What the server says it serves, by path."""

    def served(*names):
        return {"kind": "APIResourceList", "resources": [{"name": name} for name in names]}

    return {
        "/apis/kubeflow.org/v1": served("mpijobs", "pytorchjobs", "pytorchjobs/status"),
        "/apis/trainer.kubeflow.org/v1alpha1": served("clustertrainingruntimes", "trainjobs", "trainjobs/status"),
        "/apis/jobset.x-k8s.io": {"kind": "APIGroup"},
        "/apis/kueue.x-k8s.io": {"kind": "APIGroup", "preferredVersion": {"groupVersion": "kueue.x-k8s.io/v1beta2"}},
    }  # fmt: skip


def steps_rights():
    jobs = {
        (verb, kind) for verb in JOB_VERBS for kind in ("pytorchjobs.kubeflow.org", "trainjobs.trainer.kubeflow.org")
    }
    others = {("list", "pods"), ("watch", "pods"), ("get", "pods/log")}
    return {(STEPS, *right) for right in jobs | others}


@dataclass
class KubernetesApi:
    """`rights`: what accounts may do. `forbidden`: paths that the caller may not ask. `images`: how the container with
    an image ends. `verdict`: exit code and log of the doctor's pod. `pod`: fields of the status of every pod.
    `events`: why no pod comes. `slow_pods`: how often pods are looked for before they come."""

    objects: dict = field(default_factory=cluster_in_order)
    discovery: dict = field(default_factory=discovery)
    rights: set = field(default_factory=steps_rights)
    forbidden: list = field(default_factory=list)
    refusal: str = 'User "ann" cannot do this'
    version: str = "v1.34.4"
    images: dict = field(default_factory=dict)
    verdict: tuple = (0, [f"ok    S3: {PROMISE}", "all is well"])
    pod: dict = field(default_factory=dict)
    events: list = field(default_factory=list)
    slow_pods: int = 0
    knows_caller: bool = True
    jobs: dict = field(default_factory=dict)
    created: list = field(default_factory=list)
    reviews: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    host: str = ""

    def answer(self, method, path, query, body):
        """Return status and body."""
        self.requests.append((method, path))
        if path == "/version":
            return 200, {"major": "1", "minor": "34", "gitVersion": self.version}
        if not self.knows_caller:
            return 401, status(401, "Unauthorized", "Unauthorized")
        if any(re.search(pattern, f"{method} {path}") for pattern in self.forbidden):
            return 403, status(403, "Forbidden", f"{path.rpartition('/')[2]} is forbidden: {self.refusal}")
        if path in self.discovery:
            return 200, self.discovery[path]
        if path.endswith("accessreviews"):
            return 201, self._review(body)
        if "/jobs" in path:
            return self._job(method, path, body)
        if path.endswith("/pods") and "labelSelector" in query:
            return 200, {"items": self._pods(query["labelSelector"].removeprefix("job-name="))}
        if path.endswith("/log"):
            return 200, "\n".join(self.verdict[1]) + "\n"
        if path.endswith("/events"):
            return 200, {"items": [{"reason": "FailedCreate", "message": said} for said in self.events]}
        return self._read(path)

    def _read(self, path):
        if path in self.objects:
            return 200, self._named(path)
        prefix, _, plural = path.rpartition("/")
        listed = re.compile(rf"{re.escape(prefix)}(?:/namespaces/[^/]+)?/{plural}/[^/]+")
        found = [self._named(each) for each in self.objects if listed.fullmatch(each)]
        if found or plural in ("resourcequotas", "deployments", "nodes"):
            return 200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": found}
        return 404, status(404, "NotFound", f'"{plural}" not found')

    def _named(self, path):
        """Return an object with the metadata that its path gives it."""
        namespace = re.search(r"/namespaces/([^/]+)/", path)
        metadata = {"name": path.rpartition("/")[2], **({"namespace": namespace[1]} if namespace else {})}
        return {**self.objects[path], "metadata": {**self.objects[path].get("metadata", {}), **metadata}}

    def _review(self, body):
        spec = body["spec"]
        if "user" not in spec:
            return {**body, "status": {"allowed": True}}
        self.reviews.append(spec)
        asked = spec["resourceAttributes"]
        what = asked["resource"] + (f"/{asked['subresource']}" if asked["subresource"] else "")
        what += f".{asked['group']}" if asked["group"] else ""
        namespace, account = spec["user"].removeprefix("system:serviceaccount:").split(":")
        assert namespace == asked["namespace"] == body["metadata"]["namespace"]
        return {**body, "status": {"allowed": (account, asked["verb"], what) in self.rights}}

    def _job(self, method, path, body):
        name = path.rpartition("/")[2]
        if method == "POST":
            kubernetes_validate.validate(body, "1.33", strict=True)
            made = {**body, "metadata": {**body["metadata"], "uid": f"uid-{len(self.created)}"}}
            self.created.append(made)
            self.jobs[body["metadata"]["name"]] = made
            return 201, made
        if method == "DELETE" and name in self.jobs:
            assert body["propagationPolicy"] == "Background"
            del self.jobs[name]
            return 200, {"kind": "Status", "status": "Success"}
        return 404, status(404, "NotFound", f'jobs.batch "{name}" not found')

    def _pods(self, job):
        self.slow_pods -= 1
        if job not in self.jobs or self.events or self.slow_pods >= 0:
            return []
        spec = self.jobs[job]["spec"]["template"]["spec"]
        states = [
            {"name": each["name"], "image": each["image"], "state": self._state(each)} for each in spec["containers"]
        ]
        found = {"phase": phase(states), "containerStatuses": states, **self.pod}
        return [{"metadata": {"name": f"{job}-x7k2p"}, "spec": spec, "status": found}]

    def _state(self, container):
        if container["image"] in self.images:
            return self.images[container["image"]]
        code = self.verdict[0] if container["name"] == "doctor" else 0
        return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}

    def write_kubeconfig(self, path):
        user = {"name": "ann", "user": {"token": TOKEN}}
        context = {"name": "here", "context": {"cluster": "here", "user": "ann"}}
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "here", "users": [user], "contexts": [context],
            "clusters": [{"name": "here", "cluster": {"server": self.host}}],
        }))  # fmt: skip
        return path


def phase(containers):
    states = [each["state"] for each in containers]
    if all("terminated" in state for state in states):
        return "Failed" if any(state["terminated"]["exitCode"] for state in states) else "Succeeded"
    # Until every image is there, however far the other containers are.
    return "Pending" if any("waiting" in state for state in states) else "Running"


def status(code, reason, message):
    return {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two packets: the second would wait 40 ms for the first to be acknowledged.
    disable_nagle_algorithm = True

    def answer(self):
        where = urlsplit(self.path)
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        with self.server.lock:
            code, body = self.server.api.answer(
                self.command, where.path, dict(parse_qsl(where.query)), json.loads(text) if text else None
            )
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *args):
        pass


@contextmanager
def kubernetes_api():
    """Serve an API of its own on a free port of this host."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.api, server.lock = KubernetesApi(), threading.Lock()
    server.api.host = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
