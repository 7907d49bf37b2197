"""The API of Kubeflow Pipelines: the only module that talks to it, through kfp's own client.

kfp's client finds the host, the namespace and the credentials by its own means (KF_PIPELINES_ENDPOINT, the service
account's token in a pod, the kubeconfig, its context file). What it lacks is added here: a time limit on every
request, bounded retries of those that only read, and letters instead of stack traces.
"""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import kfp.client
import kfp_server_api
import urllib3
from oatflow.components.errors import ClusterError, RefusedInput

TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"
SECONDS_TO_CONNECT, SECONDS_TO_ANSWER = 10, 60
# Only what reads is sent again: nobody knows whether a create that was not answered was done.
RETRIES = urllib3.Retry(
    total=3, allowed_methods=["GET"], status_forcelist=[429, 502, 503, 504], backoff_factor=0.3, raise_on_status=False
)
PAGE, MOST_PAGES = 100, 100
ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")


class ClusterUnreachable(ClusterError):
    """Nothing answers where the API of Kubeflow Pipelines should be."""

    exit_code = 2


class ClusterRefused(ClusterError):
    """The API of Kubeflow Pipelines answers, and refuses what was asked or who asks."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Task:
    """One node of a run's graph; `parent` is the id of the node that it is in."""

    id: str
    name: str
    state: str
    since: datetime | None
    error: str
    parent: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run; `schedule` is the id of the schedule that started it."""

    id: str
    name: str
    state: str
    created: datetime | None
    finished: datetime | None
    error: str
    schedule: str
    arguments: Mapping[str, Any]
    tasks: tuple[Task, ...]

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class Schedule:
    """What KFP calls a recurring run."""

    id: str
    name: str
    cron: str
    enabled: bool
    experiment_id: str


@dataclass(frozen=True, slots=True)
class Package:
    """What a run is made of: the compiled pipeline, its typed arguments, and the account that its pods run as."""

    file: Path
    arguments: Mapping[str, Any]
    service_account: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What the API says of itself. `version`: empty where it does not name one."""

    version: str
    many_users: bool


class Cluster:
    """Kubeflow Pipelines at one host, seen by one namespace."""

    def __init__(self, client: Any, namespace: str):
        self._client = client
        self.namespace = namespace

    @classmethod
    def connect(cls, host: str | None, namespace: str | None) -> Cluster:
        """Reach the API and find the namespace. Raises `ClusterUnreachable`, `ClusterRefused` or `RefusedInput`."""
        credentials = _token_file() if host else None
        with _letters(lambda: host or "the API of Kubeflow Pipelines", "say how it is"):
            client = _Client(host=host, credentials=credentials)
            many_users = client.get_kfp_healthz().multi_user
        namespace = namespace or client.get_user_namespace()
        if many_users and not namespace:
            raise RefusedInput("namespace: this Kubeflow has a namespace for each user; name yours with --namespace")
        return cls(client, namespace or "")

    @property
    def host(self) -> str:
        """Where the API is."""
        return _host(self._client)

    def health(self) -> Health:
        """Return the version of Kubeflow Pipelines, and whether it has a namespace for each user."""
        with self._letters("say how it is"):
            # Not by kfp's own call, whose answer has no field for the version.
            found = self._client._healthz_api.api_client.call_api(
                "/apis/v2beta1/healthz", "GET", header_params={"Accept": "application/json"}, response_type="object",
                auth_settings=["Bearer"], _return_http_data_only=True,
            )  # fmt: skip
        # The UI's server, which is what a login leads to, has a name of its own for it.
        version = str(found.get("tag_name") or found.get("apiServerTagName") or "")
        return Health("" if version == "unknown" else version, bool(found.get("multi_user")))

    def run_link(self, run_id: str) -> str:
        """Return where a browser shows the run."""
        return f"{self._client._get_url_prefix()}/#/runs/details/{run_id}"

    def experiment_id(self, name: str) -> str | None:
        """Return the id of the experiment of that name, if there is one."""
        key = json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
        with self._letters(f"look for the experiment {name!r}"):
            found = self._client.list_experiments(filter=key, namespace=self.namespace).experiments or []
        return next((each.experiment_id for each in found if each.display_name == name), None)

    def need_experiment(self, name: str) -> str:
        """Return the id of the experiment of that name, which is created where there is none."""
        with self._letters(f"create the experiment {name!r}"):
            created = self._client.create_experiment(name, namespace=self.namespace)
        return str(created.experiment_id)

    def start(self, experiment_id: str, name: str, package: Package) -> Run:
        """Start a run now."""
        with self._letters(f"start the run {name!r}"):
            return _run(self._client.run_pipeline(experiment_id, name, **_sent(package)))

    def run(self, run_id: str) -> Run:
        """Return a run with its tasks."""
        with self._letters(f"look at run {run_id}"):
            return _run(self._client.get_run(run_id))

    def runs(self, experiment_id: str, most: int) -> list[Run]:
        """Return the last runs of an experiment, newest first."""
        with self._letters("list runs"):
            page = self._client.list_runs(experiment_id=experiment_id, sort_by="created_at desc", page_size=most)
        return [_run(each) for each in page.runs or []]

    def schedules(self) -> list[Schedule]:
        """Return all schedules of the namespace."""
        found, token = [], ""
        for _ in range(MOST_PAGES):
            with self._letters("list schedules"):
                page = self._client.list_recurring_runs(
                    namespace=self.namespace, page_size=PAGE, page_token=token, sort_by="created_at desc"
                )
            found += [_schedule(each) for each in page.recurring_runs or []]
            token = page.next_page_token or ""
            if not token:
                return found
        raise ClusterError(f"{self.host} lists schedules without an end; {len(found)} were read")

    def create_schedule(self, experiment_id: str, name: str, cron: str, package: Package, enabled: bool) -> Schedule:
        """Create a schedule that starts one run at a time and none that it missed."""
        with self._letters(f"create the schedule {name!r}"):
            return _schedule(
                self._client.create_recurring_run(
                    experiment_id, name, cron_expression=cron, enabled=enabled, no_catchup=True, max_concurrency=1,
                    **_sent(package),
                )
            )  # fmt: skip

    def delete_schedule(self, schedule: Schedule) -> None:
        """Delete a schedule; its runs stay."""
        with self._letters(f"delete the schedule {schedule.name!r} ({schedule.id})"):
            self._client.delete_recurring_run(schedule.id)

    @contextmanager
    def _letters(self, deed: str) -> Iterator[None]:
        with _letters(lambda: self.host, deed):
            yield


class _Client(kfp.client.Client):  # type: ignore[misc]
    """kfp's client, made patient before its first request, which is the one for healthz."""

    def __init__(self, **how: Any):
        with warnings.catch_warnings():
            # Says that it does not speak to KFP 1.
            warnings.simplefilter("ignore", FutureWarning)
            super().__init__(**how)

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        api = self._healthz_api.api_client
        if not isinstance(api.rest_client, _PatientRest):
            # A retry is no news; that they were all in vain becomes a letter.
            logging.getLogger("urllib3").setLevel(logging.ERROR)
            api.configuration.retries = RETRIES
            api.rest_client = _PatientRest(api.configuration)
        return self._healthz_api.healthz_service_get_healthz()


class _PatientRest(kfp_server_api.rest.RESTClientObject):  # type: ignore[misc]
    """The generated client's transport, with a time limit, and deaf to login pages."""

    def request(self, *args: Any, **more: Any) -> Any:
        more["_request_timeout"] = more.get("_request_timeout") or (SECONDS_TO_CONNECT, SECONDS_TO_ANSWER)
        answer = super().request(*args, **more)
        kind = answer.getheader("Content-Type") or ""
        if answer.data and "json" not in kind:
            raise _NotTheApi(kind)
        return answer


class _NotTheApi(Exception):
    """Something answered well, but not in JSON."""


@contextmanager
def _letters(host: Callable[[], str], deed: str) -> Iterator[None]:
    """Turn what the client raises into letters, and keep what it prints to itself."""
    try:
        with redirect_stdout(io.StringIO()):
            yield
    except kfp_server_api.ApiException as error:
        raise _refusal(host(), deed, error) from error
    except _NotTheApi as error:
        raise ClusterRefused(
            f"{host()} answers with {str(error) or 'no content type'}, not as the API of Kubeflow Pipelines does: a "
            "login page, or another service? Give the API's address with --host, and credentials as kfp's client "
            "takes them"
        ) from error
    except urllib3.exceptions.HTTPError as error:
        raise ClusterUnreachable(
            f"no answer from {_where(error) or host()} when asked to {deed} ({_cause(error)}); is the port-forward up? "
            "--host or KF_PIPELINES_ENDPOINT says where the API is"
        ) from error


def _refusal(host: str, deed: str, error: Any) -> ClusterError:
    """Say what the server said, and who must act."""
    said = _said(error)
    if not error.status:
        return ClusterUnreachable(f"{host} cannot be trusted or understood{said}; check --host and its certificate")
    if error.status in (401, 403):
        who = "who asks" if error.status == 401 else "that this account may do it in this namespace"
        return ClusterRefused(
            f"{host} refuses to {deed}: it does not know {who} ({error.status}{said}); check the credentials and "
            "--namespace, or ask the cluster's admin for the role kubeflow-edit there"
        )
    if error.status == 404:
        return ClusterRefused(f"{host} cannot {deed}: there is no such thing (404{said}); check --host and the name")
    if error.status < 500 and error.status != 429:
        return ClusterRefused(f"{host} refuses to {deed} ({error.status}{said})")
    return ClusterError(f"{host} failed to {deed} ({error.status}{said}); try again, or look at the pod ml-pipeline")


def _said(error: Any) -> str:
    """Return the server's own message, as far as a line goes."""
    text = str(error.body or error.reason or "")
    try:
        body = json.loads(text)
        text = str(body.get("message") or body.get("error") or "") if isinstance(body, dict) else ""
    except ValueError:
        text = "" if text.lstrip().startswith("<") else text
    return f": {' '.join(text.split())[:1000]}" if text else ""


def _cause(error: urllib3.exceptions.HTTPError) -> str:
    """Return the innermost reason, without addresses of Python objects."""
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).rpartition(">: ")[2].split())


def _where(error: urllib3.exceptions.HTTPError) -> str:
    """Return host and port that did not answer."""
    pool = getattr(error, "pool", None)
    return f"{pool.scheme}://{pool.host}:{pool.port or ''}".rstrip(":") if pool is not None else ""


def _host(client: Any) -> str:
    return str(client._existing_config.host)


def _token_file() -> Any:
    """Return kfp's credentials from a token file, where its own variable names one."""
    path = os.environ.get(TOKEN_FILE)
    if not path:
        return None
    if not os.access(path, os.R_OK):
        raise RefusedInput(f"{TOKEN_FILE}={path!r}: cannot be read; it names the file with the token for the API")
    return kfp.client.ServiceAccountTokenVolumeCredentials(path)


def _sent(package: Package) -> dict[str, Any]:
    return {
        "pipeline_package_path": str(package.file),
        "params": dict(package.arguments),
        "service_account": package.service_account,
        # The tasks say so themselves; this says it to whoever reads the run.
        "enable_caching": False,
    }


def _run(run: Any) -> Run:
    details = run.run_details.task_details if run.run_details else None
    return Run(
        id=run.run_id,
        name=run.display_name or "",
        state=run.state or "PENDING",
        created=run.created_at,
        finished=run.finished_at,
        error=run.error.message or "" if run.error else "",
        schedule=run.recurring_run_id or "",
        arguments=(run.runtime_config.parameters if run.runtime_config else None) or {},
        tasks=_tasks(details or []),
    )


def _tasks(details: list[Any]) -> tuple[Task, ...]:
    """Return all tasks with their parents, which some servers name in the child and others in the parent."""
    named = {name: each.task_id for each in details for name in (each.task_id, each.pod_name) if name}
    parents = {
        named[name]: each.task_id
        for each in details
        for child in each.child_tasks or []
        for name in (child.task_id, child.pod_name)
        if name in named
    }
    return tuple(_task(each, each.parent_task_id or parents.get(each.task_id) or "") for each in details)


def _task(task: Any, parent: str) -> Task:
    return Task(
        id=task.task_id or "",
        name=task.display_name or "",
        state=task.state or "PENDING",
        since=task.start_time or task.create_time,
        error=task.error.message or "" if task.error else "",
        parent=parent,
    )


def _schedule(recurring: Any) -> Schedule:
    trigger = recurring.trigger.cron_schedule if recurring.trigger else None
    return Schedule(
        id=recurring.recurring_run_id,
        name=recurring.display_name or "",
        cron=(trigger.cron if trigger else None) or "",
        enabled=(recurring.status or recurring.mode) in ("ENABLED", "ENABLE"),
        experiment_id=recurring.experiment_id or "",
    )
