"""The API server, for one namespace: jobs, pods and their logs as plain documents.

Where it is busy, fails or cannot be reached, a call is repeated for PATIENCE_SECONDS. After that, and for every error
that repeating cannot mend, a `ClusterError` says what is wrong. None of these is a failure of a job.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from ..errors import ClusterError
from .job_kind import Document, JobKind

PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 60.0
# How long the server keeps a watch open; well below what proxies on the way allow.
WATCH_SECONDS = 30
# Too many requests, and a server that fails for now.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# The server would drop fields that it does not know without a word; here it is asked to refuse them.
_STRICT = [("fieldValidation", "Strict")]
_VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "GET": "get"}


class Forbidden(ClusterError):
    """This service account may not do that."""


class NoSuchKind(ClusterError):
    """The cluster does not know this kind of object."""


class Change(NamedTuple):
    """An object as it is now, or as it was last when it is gone."""

    found: Document
    gone: bool


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as the API server's addresses spell it."""

    api: str
    plural: str
    operator: str = "it"
    in_namespace: bool = True

    @classmethod
    def of(cls, kind: JobKind) -> Resource:
        """Return the resource of a kind of job."""
        return cls(f"/apis/{kind.group}/{kind.version}", kind.plural, kind.operator)


PODS = Resource("/api/v1", "pods")


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the API server; `none_for`: the HTTP statuses that mean that there is nothing."""

    method: str
    resource: Resource
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: Document | None = None
    none_for: tuple[int, ...] = ()
    patience: float | None = None
    stream: bool = False

    @property
    def action(self) -> str:
        """Verb and resource, as a Role names them."""
        if self.path.endswith("/log"):
            return f"get {self.resource.plural}/log"
        if self.path.endswith(f"/{self.resource.plural}") and self.method == "GET":
            return f"{'watch' if ('watch', 'true') in self.query else 'list'} {self.resource.plural}"
        return f"{_VERBS[self.method]} {self.resource.plural}"


class Cluster:
    """One namespace of a cluster. `patience`: seconds to go on asking, where they are not PATIENCE_SECONDS."""

    def __init__(self, api: client.ApiClient, namespace: str, patience: float | None = None):
        self._api, self.namespace, self._patience = api, namespace, patience

    @classmethod
    def open(
        cls, environment: Mapping[str, str], namespace: str | None = None, patience: float | None = None
    ) -> Cluster:
        """Find the cluster: the one that KUBECONFIG names, the one this pod runs in, or kubectl's own default."""
        settings = client.Configuration()
        # Retries are made here; the connection pool would wait for a Retry-After of any length.
        settings.retries = False
        default = _load_configuration(settings, environment)
        wanted = namespace or environment.get("POD_NAMESPACE") or default
        return cls(client.ApiClient(settings), wanted, patience)

    def create(self, resource: Resource, body: Document) -> Document | None:
        """Create an object, or return None if there is one of that name."""
        path = self._resource_path(resource)
        return self._read_document(Call("POST", resource, path, _STRICT, body, none_for=(409,)))

    def get(self, resource: Resource, name: str, patience: float | None = None) -> Document | None:
        """Return an object, or None where there is none."""
        path = self._resource_path(resource, name)
        return self._read_document(Call("GET", resource, path, none_for=(404,), patience=patience))

    def read(self, path: str, **query: str) -> Document | None:
        """Return the answer to a GET of any path of the API server, or None where there is nothing (404)."""
        resource = Resource(path, path.rpartition("/")[2])
        return self._read_document(Call("GET", resource, path, list(query.items()), none_for=(404,)))

    def list_all(self, resource: Resource, **selectors: str) -> Document:
        """Return the list of all objects that match `labelSelector` and `fieldSelector`."""
        found = self._read_document(Call("GET", resource, self._resource_path(resource), list(selectors.items())))
        assert found is not None
        return found

    def patch(self, resource: Resource, name: str, patch: Document) -> Document | None:
        """Merge a patch into an object; returns it, or None where there is none."""
        path = self._resource_path(resource, name)
        return self._read_document(Call("PATCH", resource, path, _STRICT, patch, none_for=(404,)))

    def delete(
        self, resource: Resource, found: Document, patience: float | None = None, owned_first: bool = False
    ) -> None:
        """Have an object deleted, and what it owns after it, or before; not another one that took over its name."""
        policy = "Foreground" if owned_first else "Background"
        body = {"propagationPolicy": policy, "preconditions": {"uid": found["metadata"]["uid"]}}
        path = self._resource_path(resource, found["metadata"]["name"])
        self._read_document(Call("DELETE", resource, path, body=body, none_for=(404, 409), patience=patience))

    def changes(
        self, resource: Resource, stopped: threading.Event, seen: Iterable[Document] = (), **selectors: str
    ) -> Iterator[Change]:
        """Yield every object that matches as it is now, and then whenever it changes, until `stopped`.

        `seen`: objects that were there before; whichever of them is not there any more is gone.
        """
        known: dict[str, Document] = {found["metadata"]["uid"]: found for found in seen}
        while not stopped.is_set():
            listed = self.list_all(resource, **selectors)
            here = {found["metadata"]["uid"]: found for found in listed["items"]}
            # What went while nobody looked.
            for uid in known.keys() - here.keys():
                yield Change(known.pop(uid), gone=True)
            for uid, found in here.items():
                if known.get(uid) != found:
                    known[uid] = found
                    yield Change(found, gone=False)
            yield from self._watch_after(resource, known, listed["metadata"]["resourceVersion"], stopped, selectors)

    def log(self, pod: str, **options: str) -> Iterator[str]:
        """Yield a container's log line by line; nothing where it has none yet, or the pod is gone.

        Ends where the log ends, and also, without a word, where the connection breaks.
        """
        path = self._resource_path(PODS, pod, "log")
        response = self._ask(Call("GET", PODS, path, list(options.items()), none_for=(400, 404), stream=True))
        yield from _read_lines(response) if response is not None else ()

    def _watch_after(
        self,
        resource: Resource,
        known: dict[str, Document],
        version: str,
        stopped: threading.Event,
        selectors: Mapping[str, str],
    ) -> Iterator[Change]:
        """Yield changes after `version`, until the server does not remember it any more."""
        while not stopped.is_set():
            began = time.monotonic()
            query = [*selectors.items(), ("watch", "true"), ("timeoutSeconds", str(WATCH_SECONDS))]
            query.append(("resourceVersion", version))
            path = self._resource_path(resource)
            response = self._ask(Call("GET", resource, path, query, none_for=(410,), stream=True))
            if response is None:
                stopped.wait(PAUSE_SECONDS)
                return
            for line in _read_lines(response, whole=True):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    # Most likely 410: too old. Whatever it is, a new list is the way to go on.
                    stopped.wait(PAUSE_SECONDS)
                    return
                found = event["object"]
                version = found["metadata"]["resourceVersion"]
                if event["type"] == "BOOKMARK":
                    continue
                gone = event["type"] == "DELETED"
                known.pop(found["metadata"]["uid"], None)
                if not gone:
                    known[found["metadata"]["uid"]] = found
                yield Change(found, gone)
            if time.monotonic() - began < PAUSE_SECONDS:
                # A watch that breaks at once; how often is bounded by whoever sets `stopped`.
                stopped.wait(PAUSE_SECONDS)

    @property
    def host(self) -> str:
        """The address of the API server."""
        return str(self._api.configuration.host)

    def _resource_path(self, resource: Resource, *rest: str) -> str:
        namespace = ["namespaces", self.namespace] if resource.in_namespace else []
        return "/".join([resource.api, *namespace, resource.plural, *rest])

    def _read_document(self, call: Call) -> Document | None:
        found = self._ask(call)
        return None if found is None else dict(found)

    def _ask(self, call: Call) -> Any:
        """Ask the server, and again while that may help; returns its answer, or None for a status in `none_for`."""
        chosen = (call.patience, self._patience, PATIENCE_SECONDS)
        until = time.monotonic() + next(patience for patience in chosen if patience is not None)
        pause = PAUSE_SECONDS
        while True:
            try:
                return self._ask_once(call)
            except client.ApiException as error:
                if error.status in call.none_for:
                    return None
                if error.status not in _PASSING or time.monotonic() >= until:
                    raise self._explain_refusal(call, error) from error
                asked = _retry_after(error)
            except HTTPError as error:
                if time.monotonic() >= until:
                    raise ClusterError(f"the API server {self.host} cannot be reached: {error}") from error
                asked = 0.0
            wait = max(pause * (0.5 + random.random()), asked)
            time.sleep(min(wait, LONGEST_PAUSE_SECONDS, max(0.0, until - time.monotonic())))
            pause *= 2

    def _ask_once(self, call: Call) -> Any:
        header = {"Accept": "application/json, */*"}
        if call.method == "PATCH":
            header["Content-Type"] = "application/merge-patch+json"
        return self._api.call_api(
            call.path,
            call.method,
            query_params=list(call.query),
            header_params=header,
            body=call.body,
            response_type="object",
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _preload_content=not call.stream,
            _request_timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
        )

    def _explain_refusal(self, call: Call, error: client.ApiException) -> ClusterError:
        """Say what the server refused, and what to do."""
        what, resource = f"{call.action} in namespace {self.namespace}", call.resource
        said = _read_message(error)
        if error.status == 403:
            return Forbidden(
                f"the API server does not let this service account {what}; the Role in manifests/base grants it. "
                f"It says: {said}"
            )
        if error.status == 404:
            return NoSuchKind(
                f"cannot {what}: the cluster has no {resource.plural}: install {resource.operator}, or choose another "
                f"jobs.train_backend (pytorchjob, trainjob, local). It says: {said}"
            )
        if not error.status:
            return ClusterError(f"cannot {what}: no trust in the API server {self.host}: {said}")
        if error.status in _PASSING:
            return ClusterError(f"cannot {what}: the API server still fails with {error.status}: {said}")
        return ClusterError(f"cannot {what}: the API server refuses it with {error.status}: {said}")


def _load_configuration(settings: client.Configuration, environment: Mapping[str, str]) -> str:
    """Fill in how to reach the cluster; returns the namespace that goes with it."""
    named = environment.get("KUBECONFIG")
    try:
        if not named and environment.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(settings)
            return _NAMESPACE_FILE.read_text().strip()
        config.load_kube_config(named, client_configuration=settings)
        _, active = config.list_kube_config_contexts(named)
    except (config.ConfigException, OSError) as error:
        raise ClusterError(
            f"no cluster: {error}. Training in a job needs one: run in a pod of the cluster, or set KUBECONFIG; or use "
            "jobs.train_backend=local"
        ) from error
    return str(active["context"].get("namespace", "default"))


def _read_lines(response: Any, whole: bool = False) -> Iterator[str]:
    """Yield the lines of an answer as they come; where it breaks, it ends.

    `whole`: without a last line that does not end.
    """
    rest = b""
    try:
        for piece in response.stream(amt=2**16):
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines if line)
    except HTTPError:
        # Dropped in the middle of a line: whoever asks again gets it whole.
        rest = b""
    finally:
        response.close()
        response.release_conn()
    if rest and not whole:
        yield rest.decode(errors="replace")


def _read_message(error: client.ApiException) -> str:
    """Return the sentence of the server's answer."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or error.reason or ""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(body).strip()[:500]


def _retry_after(error: client.ApiException) -> float:
    """Return how long the server asks to be left alone; 0 where it does not say, or gives a date."""
    asked = (error.headers or {}).get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0
