"""The HTTP side: what the real client sends, answered as the real server does, with faults to order."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import yaml

from .objects import Gone, Objects, now
from .operators import JobRun, PyTorchJobRun, TrainJobRun
from .pod import Pod, light_torchrun
from .schema import CrdSchema

NAMESPACE, TOKEN = "team-a", "a-token"
# What the launcher's service account may do on a cluster is what it may do here.
ROLE = Path(__file__).parents[3] / "manifests" / "base" / "launcher-role.yaml"
_VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
_RUNS = {"pytorchjobs": PyTorchJobRun, "trainjobs": TrainJobRun}
_PATH = re.compile(
    r"^(?:/api/v1|/apis/(?P<group>[^/]+)/(?P<version>[^/]+))/namespaces/(?P<namespace>[^/]+)/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?P<log>/log)?$"
)


@dataclass
class Fault:
    """What to answer instead, to the next `times` requests whose method and path match."""

    method: str
    path: str
    status: int
    times: float
    headers: dict = field(default_factory=dict)
    message: str = "ordered by the test"


@dataclass
class Drop:
    """Break the next `times` streams of this kind ("watch", "log") after so many lines."""

    kind: str
    times: int
    after: int


class KubernetesApiDouble:
    def __init__(self, schemas: list[CrdSchema], folder: Path):
        self.objects, self.folder = Objects(), folder
        self.schemas = {schema.plural: schema for schema in schemas}
        self.secrets = {"mlpipeline-minio-artifact": {"accesskey": "an-access-key", "secretkey": "a-secret-key"}}
        self.requests: list[tuple[str, str]] = []
        self.used: set[tuple[str, str, str]] = set()
        self.faults: list[Fault] = []
        self.drops: list[Drop] = []
        self.runs: list[JobRun] = []
        # Whether the init containers of workers find no master.
        self.master_unreachable = False
        # What plays jobs, one after the other, instead of the operators.
        self.recordings: list[Callable[[KubernetesApiDouble, dict], object]] = []
        self.unschedulable = self.image_problem = ""
        self.deletion_seconds = 0.0
        self.restart_seconds = 0.5
        self.closed = False
        self.news = threading.Event()
        (folder / "bin").mkdir()
        paths = (str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])
        self.pod_environment = {"PATH": os.pathsep.join(paths), "PYTHONPATH": str(folder)}
        light_torchrun(folder / "bin", sys.executable)
        handler = type("Handler", (_Handler,), {"double": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.kubeconfig = self._write_kubeconfig()

    def close(self) -> None:
        self.closed = True
        self.news.set()
        for run in self.runs:
            run.end()
        self._server.shutdown()
        self._server.server_close()

    def use_real_torchrun(self) -> None:
        (self.folder / "bin" / "torchrun").unlink()

    def fail(self, method: str, path: str, status: int, times: float = 1, **how: object) -> None:
        self.faults.append(Fault(method, path, status, times, **how))

    def drop(self, kind: str, times: int = 1, after: int = 0) -> None:
        self.drops.append(Drop(kind, times, after))

    def asked(self, method: str, path: str) -> int:
        """How often something was asked for."""
        return sum(made == method and re.search(path, where) is not None for made, where in list(self.requests))

    def job(self, plural: str = "pytorchjobs") -> dict | None:
        found, _ = self.objects.list(plural)
        return found[0] if found else None

    def pod(self, name_ends: str):
        """Return the living pod whose name ends so."""
        return next(pod for pod in self.pods if re.search(f"{name_ends}$", pod.name))

    @property
    def pods(self) -> list[Pod]:
        """All pods that ever were, those of the newest job first."""
        return [pod for run in reversed(self.runs) for pod in run.pods]

    def admit(self, plural: str, name: str) -> None:
        """Resume a suspended job, as Kueue does."""
        self.objects.update(plural, name, lambda job: job["spec"].get("runPolicy", job["spec"]).update(suspend=False))

    def suspend(self, plural: str, name: str) -> None:
        """Suspend a job that runs, as Kueue does for one that is more important."""
        self.objects.update(plural, name, lambda job: job["spec"].get("runPolicy", job["spec"]).update(suspend=True))

    def has_secret(self, reference: dict) -> bool:
        return reference["key"] in self.secrets.get(reference["name"], {})

    def resolve(self, container: dict) -> dict[str, str]:
        """Return a container's environment, its secrets looked up."""
        found = {}
        for variable in container["env"]:
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference is None:
                found[variable["name"]] = variable["value"]
            elif self.has_secret(reference):
                found[variable["name"]] = self.secrets[reference["name"]][reference["key"]]
        return found

    def write_status(self, plural: str, name: str, uid: str, change) -> None:
        """Change an object's status, which has a schema as well."""

        def checked(found: dict) -> None:
            if found["metadata"]["uid"] == uid:
                change(found)
                schema = self.schemas[plural]
                assert not schema.unknown(found) and not schema.invalid(found), found["status"]

        self.objects.update(plural, name, checked)

    def take_up(self, plural: str, found: dict) -> None:
        self.runs.append(self.recordings.pop(0)(self, found) if self.recordings else _RUNS[plural](self, found))

    def delete(self, plural: str, name: str, owned_first: bool = False) -> None:
        """Delete an object and its pods, at once or after a while; the object first or last."""
        run = next(run for run in reversed(self.runs) if (run.plural, run.name) == (plural, name))
        if owned_first or self.deletion_seconds:
            self.objects.update(plural, name, lambda found: found["metadata"].update(deletionTimestamp=now()))
        else:
            self.objects.remove(plural, name, run.uid)

        def go() -> None:
            time.sleep(self.deletion_seconds)
            run.end()
            self.objects.remove(plural, name, run.uid)

        threading.Thread(target=go, name=f"deletion of {name}", daemon=True).start()

    def add_step(self, name: str, workflow: str = "") -> dict:
        """Add the pod of a step, and the Workflow that it belongs to unless that is there."""
        metadata = {"name": name, "labels": {"pipeline/runid": "run-1"}}
        if workflow:
            self.objects.add("workflows", {"metadata": {"name": workflow}})
            uid = self.objects.get("workflows", workflow)["metadata"]["uid"]
            metadata["labels"]["workflows.argoproj.io/workflow"] = workflow
            owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": workflow, "uid": uid}
            metadata["ownerReferences"] = [owner | {"controller": True, "blockOwnerDeletion": True}]
        spec = {"containers": [{"name": "main"}, {"name": "wait"}]}
        return self.objects.add("pods", {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})

    def remove(self, plural: str, name: str) -> None:
        """Remove a step's pod or a Workflow, and with it what it owns, as Kubernetes' garbage collector does."""
        self.objects.remove(plural, name, self.objects.get(plural, name)["metadata"]["uid"])
        self.collect_garbage()

    def collect_garbage(self) -> None:
        """Delete the jobs that have owners, of which none is there any more."""
        here = {one["metadata"]["uid"] for plural in ("pods", "workflows") for one in self.objects.list(plural)[0]}
        for plural in _RUNS:
            for job in self.objects.list(plural)[0]:
                owners = {owner["uid"] for owner in job["metadata"].get("ownerReferences", ())}
                if owners and not owners & here:
                    self.delete(plural, job["metadata"]["name"])

    def _write_kubeconfig(self) -> Path:
        path = self.folder / "kubeconfig"
        server = f"http://127.0.0.1:{self._server.server_port}"
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "double",
            "clusters": [{"name": "double", "cluster": {"server": server}}],
            "users": [{"name": "launcher", "user": {"token": TOKEN}}],
            "contexts": [{
                "name": "double", "context": {"cluster": "double", "user": "launcher", "namespace": NAMESPACE},
            }],
        }))  # fmt: skip
        return path


def rights() -> set[tuple[str, str, str]]:
    """Return what the manifests grant the launcher: verb, API group, resource."""
    role = next(found for found in yaml.safe_load_all(ROLE.read_text()) if found["kind"] == "Role")
    return {
        (verb, group, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


RIGHTS = rights()


def granted(verb: str, group: str, resource: str) -> bool:
    return (verb, group, resource) in RIGHTS


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: KubernetesApiDouble

    def log_message(self, *args: object) -> None:
        return

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        self.double.requests.append((method, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.body = json.loads(body) if body else None
        url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        fault = self._next_fault(method)
        if fault is not None:
            return self._refuse(fault.status, "Fault", fault.message, fault.headers)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "Unauthorized", "Unauthorized")
        path = _PATH.match(url.path)
        schema = self.double.schemas.get(path["plural"]) if path else None
        known = path and (path["plural"] == "pods" or (schema and (schema.group, schema.version) == path.group(1, 2)))
        if not known or path["namespace"] != NAMESPACE:
            return self._answer(404, b"404 page not found\n", content="text/plain")
        self.plural, self.name, self.schema = path["plural"], path["name"], schema
        verb = _VERBS.get(method) or self._reading_verb()
        what = path["plural"] + (path["log"] or "")
        if not granted(verb, path["group"] or "", what):
            return self._refuse(403, "Forbidden", f"cannot {verb} resource {what!r} in API group {path['group']!r}")
        self.double.used.add((verb, path["group"] or "", what))
        if path["log"]:
            return self._log()
        verb = {"GET": self._get if self.name else self._list, "POST": self._create}
        return (verb | {"PATCH": self._patch, "DELETE": self._delete})[method]()

    def _reading_verb(self) -> str:
        if self.query.get("watch") == "true":
            return "watch"
        return "get" if self.name else "list"

    def _next_fault(self, method: str) -> Fault | None:
        for fault in self.double.faults:
            if fault.times > 0 and fault.method == method and re.search(fault.path, self.path):
                fault.times -= 1
                return fault
        return None

    def _create(self) -> None:
        if not self._valid(self.body):
            return
        made = self.double.objects.add(self.plural, self.body)
        if made is None:
            name = self.body["metadata"]["name"]
            return self._refuse(409, "AlreadyExists", f'{self.plural}.{self.schema.group} "{name}" already exists')
        self.double.take_up(self.plural, made)
        self._answer(201, made)
        self.double.collect_garbage()

    def _get(self) -> None:
        found = self.double.objects.get(self.plural, self.name)
        self._answer(200, found) if found else self._not_found()

    def _list(self) -> None:
        if self.query.get("watch") == "true":
            return self._stream("watch", self._events())
        items, version = self.double.objects.list(self.plural, self._matches)
        self._answer(200, {"kind": "List", "items": items, "metadata": {"resourceVersion": str(version)}})

    def _patch(self) -> None:
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        before = self.double.objects.get(self.plural, self.name)
        if before is None:
            return self._not_found()
        if self._valid(_merged(before, self.body)):
            changed = self.double.objects.update(
                self.plural, self.name, lambda found: found.update(_merged(found, self.body))
            )
            self._answer(200, changed)
            self.double.collect_garbage()

    def _delete(self) -> None:
        found = self.double.objects.get(self.plural, self.name)
        if found is None:
            return self._not_found()
        wanted = ((self.body or {}).get("preconditions") or {}).get("uid")
        if wanted not in (None, found["metadata"]["uid"]):
            return self._refuse(409, "Conflict", f"the UID in the precondition ({wanted}) does not match")
        self.double.delete(self.plural, self.name, owned_first=self.body["propagationPolicy"] == "Foreground")
        self._answer(200, {"kind": "Status", "status": "Success"})

    def _valid(self, found: dict) -> bool:
        """Refuse what the resource does not know; that is asked for, and else the real server would just drop it."""
        assert self.query.get("fieldValidation") == "Strict"
        unknown, invalid = self.schema.unknown(found), self.schema.invalid(found)
        if unknown:
            said = ", ".join(f'unknown field "{path[1:]}"' for path in unknown)
            self._refuse(400, "BadRequest", f"{self.schema.kind} in version v1 cannot be handled: {said}")
        elif invalid:
            self._refuse(422, "Invalid", f"{self.schema.kind} is invalid: {', '.join(invalid)}")
        return not unknown and not invalid

    def _events(self) -> Iterator[bytes]:
        until = time.monotonic() + float(self.query["timeoutSeconds"])
        version = int(self.query["resourceVersion"])
        try:
            for kind, found in self.double.objects.since(self.plural, version, self._matches, until):
                yield json.dumps({"type": kind, "object": found}).encode() + b"\n"
        except Gone:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            yield json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"

    def _matches(self, found: dict) -> bool:
        labels, metadata = found["metadata"].get("labels", {}), found["metadata"]
        wanted = [pair.partition("=") for pair in self.query.get("labelSelector", "").split(",") if pair]
        field, _, value = self.query.get("fieldSelector", "").partition("=")
        assert field in ("", "metadata.name")
        return all(labels.get(key) == text for key, _, text in wanted) and (not field or metadata["name"] == value)

    def _log(self) -> None:
        pod = next((pod for pod in self.double.pods if pod.name == self.name), None)
        found = self.double.objects.get("pods", self.name)
        if pod is None or found is None:
            return self._not_found()
        containers = [one["name"] for one in found["spec"]["containers"]]
        inits = [one["name"] for one in found["spec"].get("initContainers", ())]
        wanted = self.query.get("container", containers[0] if len(containers) == 1 else "")
        if wanted not in containers + inits:
            return self._refuse(400, "BadRequest", f"container {wanted!r} is not valid for pod {self.name}")
        if wanted in inits:
            return self._stream("log", self._log_lines(pod.init_log), content="text/plain")
        wanted = -2 if self.query.get("previous") == "true" else -1
        if len(pod.logs) < -wanted:
            return self._refuse(400, "BadRequest", f'container in pod "{self.name}" is waiting to start')
        self._stream("log", self._log_lines(pod.logs[wanted]), content="text/plain")

    def _log_lines(self, log) -> Iterator[bytes]:
        # Like the real one: whole seconds.
        since = self.query.get("sinceTime", "")[:19]
        tail = int(self.query.get("tailLines", 10**9))
        place = max(0, len(log.lines) - tail)
        while True:
            with log.more:
                if place == len(log.lines):
                    if log.ended or self.query.get("follow") != "true":
                        return
                    log.more.wait(0.2)
                new = log.lines[place:]
            place += len(new)
            for stamp, line in new:
                if stamp[:19] >= since:
                    said = f"{stamp} {line}" if self.query.get("timestamps") == "true" else line
                    yield said.encode() + b"\n"

    def _stream(self, kind: str, lines: Iterator[bytes], content: str = "application/json") -> None:
        drop = next((drop for drop in self.double.drops if drop.kind == kind and drop.times > 0), None)
        if drop is not None:
            drop.times -= 1
        self.send_response(200)
        self.send_header("Content-Type", content)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number, line in enumerate(lines):
                if drop is not None and number == drop.after:
                    # In the middle of a line, and without a last chunk.
                    self.wfile.write(b"%x\r\n%s" % (len(line), line[: len(line) // 2]))
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            # The client went away.
            self.close_connection = True

    def _not_found(self) -> None:
        self._refuse(404, "NotFound", f'{self.plural} "{self.name}" not found')

    def _refuse(self, status: int, reason: str, message: str, headers: dict | None = None) -> None:
        said = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": status}
        self._answer(status, said, headers)

    def _answer(
        self, status: int, body: dict | bytes, headers: dict | None = None, content: str = "application/json"
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": content, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _merged(found: dict, patch: dict) -> dict:
    """Apply a merge patch: null removes, objects merge, everything else replaces."""
    merged = dict(found)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = _merged(found.get(name) or {}, value)
        else:
            merged[name] = value
    return merged
