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
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
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
PAGE, RUNS_PAGE, MOST_PAGES = 100, 20, 100
# Of a log, which may be long: how many lines are kept, and how much of it is read.
LAST_LINES, MOST_LOG_BYTES = 200, 64 * 2**20
ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")


class ClusterUnreachable(ClusterError):
    """Nothing answers where the API of Kubeflow Pipelines should be."""

    exit_code = 2


class ClusterRefused(ClusterError):
    """The API of Kubeflow Pipelines answers, and refuses what was asked or who asks.

    `is_missing`: what was asked for does not exist.
    """

    exit_code = 2

    def __init__(self, message: str, is_missing: bool = False):
        super().__init__(message)
        self.is_missing = is_missing


@dataclass(frozen=True, slots=True)
class Task:
    """One node of a run's graph, as Argo made it.

    `state`: "" where Argo left the node out because the run ended before it. `began`, `ended`: None where it has not.
    `moved`: when KFP last noted a change. `children`: ids of nodes.
    """

    name: str
    state: str
    began: datetime | None = None
    ended: datetime | None = None
    moved: datetime | None = None
    error: str = ""
    children: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `began`: when it started to run; `ended`: None while it has not ended; `schedule`: id of its schedule.

    `terminated`: when someone asked for its end, else None. `rounds`: how many it does, 0 where the answer lacks its
    pipeline.
    """

    id: str
    name: str
    state: str
    created: datetime | None = None
    began: datetime | None = None
    ended: datetime | None = None
    terminated: datetime | None = None
    error: str = ""
    experiment_id: str = ""
    schedule: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    rounds: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    @property
    def workflow(self) -> str:
        """Name of its Workflow in the cluster, or "" where it has none yet."""
        return next((child.rpartition("-")[0] for task in self.tasks for child in task.children), "")


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment of KFP. `namespace`: "" where Kubeflow has one namespace for all."""

    id: str
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What KFP calls a recurring run."""

    id: str
    name: str
    cron: str
    enabled: bool
    experiment_id: str
    created: datetime | None = None
    description: str = ""
    namespace: str = ""


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
        return _find_host(self._client)

    def health(self) -> Health:
        """Return the version of Kubeflow Pipelines, and whether it has a namespace for each user."""
        with self._letters("report its version"):
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

    def experiment(self, name: str) -> Experiment | None:
        """Return the experiment of that name, if there is one."""
        key = json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
        with self._letters(f"look for the experiment {name!r}"):
            found = self._client.list_experiments(filter=key, namespace=self.namespace).experiments or []
        return next((_read_experiment(each) for each in found if each.display_name == name), None)

    def experiments(self, most: int) -> list[Experiment]:
        """Return the experiments of the namespace, newest first."""
        with self._letters("list experiments"):
            page = self._client.list_experiments(namespace=self.namespace, page_size=most, sort_by="created_at desc")
        return [_read_experiment(each) for each in page.experiments or []]

    def need_experiment(self, name: str) -> str:
        """Return the id of the experiment of that name, which is created where there is none."""
        with self._letters(f"create the experiment {name!r}"):
            created = self._client.create_experiment(name, namespace=self.namespace)
        return str(created.experiment_id)

    def start(self, experiment_id: str, name: str, package: Package) -> Run:
        """Start a run now."""
        with self._letters(f"start the run {name!r}"):
            return read_run(self._client.run_pipeline(experiment_id, name, **_send_request(package)))

    def run(self, run_id: str) -> Run:
        """Return a run with its tasks."""
        with self._letters(f"look at run {run_id}"):
            return read_run(self._client.get_run(run_id))

    def runs(self, experiment_id: str, most: int) -> list[Run]:
        """Return the last runs of an experiment, newest first."""
        with self._letters("list runs"):
            page = self._client.list_runs(experiment_id=experiment_id, sort_by="created_at desc", page_size=most)
        return [read_run(each) for each in page.runs or []]

    def newest_runs(self) -> list[Run]:
        """Return the newest runs of the namespace, of all experiments; each comes with its pipeline, so a few."""
        with self._letters("list runs"):
            page = self._client.list_runs(namespace=self.namespace, sort_by="created_at desc", page_size=RUNS_PAGE)
        return [read_run(each) for each in page.runs or []]

    def runs_of_schedule(self, schedule: Schedule, most: int | None = None) -> list[Run]:
        """Return the runs that a schedule has started, newest first; `most`: no more than so many."""
        found: list[Run] = []
        for run in self._runs(schedule.experiment_id):
            if schedule.created and run.created and run.created < schedule.created:
                break
            found += [run] if run.schedule == schedule.id else []
            if len(found) == most:
                break
        return found

    def step_log(self, run_id: str, pod: str) -> list[str]:
        """Return the last lines of the log of a step's pod. Raises `ClusterError` where KFP no longer has it."""
        last: deque[str] = deque(maxlen=LAST_LINES)
        with self._letters(f"read the log of pod {pod}"):
            last.extend(_text_lines(self._client, f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"))
        return list(last)

    def schedules(self) -> list[Schedule]:
        """Return all schedules of the namespace."""
        found, token = [], ""
        for _ in range(MOST_PAGES):
            with self._letters("list schedules"):
                page = self._client.list_recurring_runs(
                    namespace=self.namespace, page_size=PAGE, page_token=token, sort_by="created_at desc"
                )
            found += [_read_schedule(each) for each in page.recurring_runs or []]
            token = page.next_page_token or ""
            if not token:
                return found
        raise ClusterError(f"{self.host} lists schedules without an end; {len(found)} were read")

    def create_schedule(
        self, experiment_id: str, name: str, cron: str, package: Package, enabled: bool, description: str
    ) -> Schedule:
        """Create a schedule that starts one run at a time and none that it missed."""
        with self._letters(f"create the schedule {name!r}"):
            return _read_schedule(
                self._client.create_recurring_run(
                    experiment_id, name, description, cron_expression=cron, enabled=enabled, no_catchup=True,
                    max_concurrency=1, **_send_request(package),
                )
            )  # fmt: skip

    def switch_schedule(self, schedule: Schedule, enabled: bool) -> None:
        """Switch a schedule on or off. A run that it has started goes on."""
        switch = self._client.enable_recurring_run if enabled else self._client.disable_recurring_run
        with self._letters(f"switch the schedule {schedule.name!r} ({schedule.id}) {'on' if enabled else 'off'}"):
            switch(schedule.id)

    def delete_schedule(self, schedule: Schedule) -> None:
        """Delete a schedule. Kubernetes deletes the workflow of a run that it has started, and so ends the run."""
        with self._letters(f"delete the schedule {schedule.name!r} ({schedule.id})"):
            self._client.delete_recurring_run(schedule.id)

    def _runs(self, experiment_id: str) -> Iterator[Run]:
        """Yield all runs of an experiment, newest first; each comes with its pipeline, so few at a time."""
        token = ""
        for _ in range(MOST_PAGES):
            with self._letters("list runs"):
                page = self._client.list_runs(
                    experiment_id=experiment_id, sort_by="created_at desc", page_size=RUNS_PAGE, page_token=token
                )
            yield from map(read_run, page.runs or [])
            token = page.next_page_token or ""
            if not token:
                return
        raise ClusterError(f"{self.host} lists runs without an end; {MOST_PAGES * RUNS_PAGE} were read")

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
        if not more.get("_preload_content", True):
            return answer
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
        raise _make_refusal(host(), deed, error) from error
    except _NotTheApi as error:
        raise ClusterRefused(
            f"{host()} answers with {str(error) or 'no content type'}, not as the API of Kubeflow Pipelines does: a "
            "login page, or another service? Give the API's address with --host, and credentials as kfp's client "
            "takes them"
        ) from error
    except urllib3.exceptions.HTTPError as error:
        raise ClusterUnreachable(
            f"no answer from {_name_place(error) or host()} when asked to {deed} ({_find_cause(error)}); is the "
            "port-forward up? --host or KF_PIPELINES_ENDPOINT says where the API is"
        ) from error


def _make_refusal(host: str, deed: str, error: Any) -> ClusterError:
    """Say what the server said, and who must act."""
    said = _read_message(error)
    if not error.status:
        return ClusterUnreachable(f"{host} cannot be trusted or understood{said}; check --host and its certificate")
    if error.status in (401, 403):
        who = "who asks" if error.status == 401 else "that this account may do it in this namespace"
        return ClusterRefused(
            f"{host} refuses to {deed}: it does not know {who} ({error.status}{said}); check the credentials and "
            "--namespace, or ask the cluster's admin for the role kubeflow-edit there"
        )
    if error.status == 404:
        why = f"there is no such thing (404{said}); check --host and the name"
        return ClusterRefused(f"{host} cannot {deed}: {why}", is_missing=True)
    if error.status < 500 and error.status != 429:
        return ClusterRefused(f"{host} refuses to {deed} ({error.status}{said})")
    return ClusterError(f"{host} failed to {deed} ({error.status}{said}); try again, or look at the pod ml-pipeline")


def _read_message(error: Any) -> str:
    """Return the server's own message, as far as a line goes."""
    text = str(error.body or error.reason or "")
    try:
        body = json.loads(text)
        text = str(body.get("message") or body.get("error") or "") if isinstance(body, dict) else ""
    except ValueError:
        text = "" if text.lstrip().startswith("<") else text
    return f": {' '.join(text.split())[:1000]}" if text else ""


def _find_cause(error: urllib3.exceptions.HTTPError) -> str:
    """Return the innermost reason, without addresses of Python objects."""
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).rpartition(">: ")[2].split())


def _name_place(error: urllib3.exceptions.HTTPError) -> str:
    """Return host and port that did not answer."""
    pool = getattr(error, "pool", None)
    return f"{pool.scheme}://{pool.host}:{pool.port or ''}".rstrip(":") if pool is not None else ""


def _find_host(client: Any) -> str:
    return str(client._existing_config.host)


def _token_file() -> Any:
    """Return kfp's credentials from a token file, where its own variable names one."""
    path = os.environ.get(TOKEN_FILE)
    if not path:
        return None
    if not os.access(path, os.R_OK):
        raise RefusedInput(f"{TOKEN_FILE}={path!r}: cannot be read; it names the file with the token for the API")
    return kfp.client.ServiceAccountTokenVolumeCredentials(path)


def _send_request(package: Package) -> dict[str, Any]:
    return {
        "pipeline_package_path": str(package.file),
        "params": dict(package.arguments),
        "service_account": package.service_account,
        # The tasks say so themselves; this says it to whoever reads the run.
        "enable_caching": False,
    }


def read_run(run: Any) -> Run:
    """Return a run from an answer of the API."""
    history = [(each.state, _read_moment(each.update_time)) for each in run.state_history or []]
    details = run.run_details.task_details if run.run_details else None
    return Run(
        id=run.run_id,
        name=run.display_name or "",
        state=run.state or "PENDING",
        created=_read_moment(run.created_at),
        began=_find_first(history, "RUNNING") or _read_moment(run.created_at),
        ended=_read_moment(run.finished_at),
        terminated=_is_terminated(history),
        error=run.error.message or "" if run.error else "",
        experiment_id=run.experiment_id or "",
        schedule=run.recurring_run_id or "",
        arguments=(run.runtime_config.parameters if run.runtime_config else None) or {},
        tasks=tuple(_read_task(each) for each in details or []),
        rounds=_count_rounds(run.pipeline_spec),
    )


def _read_task(task: Any) -> Task:
    changes = [_read_moment(each.update_time) for each in task.state_history or []]
    return Task(
        name=task.display_name or "",
        state=task.state or "",
        began=_read_moment(task.start_time),
        ended=_read_moment(task.end_time),
        moved=max((change for change in changes if change), default=None),
        error=task.error.message or "" if task.error else "",
        children=tuple(child.pod_name for child in task.child_tasks or [] if child.pod_name),
    )


def _count_rounds(spec: Any) -> int:
    """Return how many rounds a pipeline does; 0 where the answer has no pipeline."""
    spec = (spec or {}).get("pipeline_spec", spec) or {}
    tasks = spec.get("root", {}).get("dag", {}).get("tasks", {})
    # The steps of a single round are in the root itself; several rounds are pipelines of their own.
    return sum(re.fullmatch(r"round(-\d+)?", name) is not None for name in tasks) or min(len(tasks), 1)


def _read_moment(moment: datetime | None) -> datetime | None:
    """Return a time; None for 1970 and the year 1, which stand for "not yet" in KFP's answers."""
    return moment if moment is not None and moment.year > 1970 else None


def _find_first(history: list[tuple[str, datetime | None]], state: str) -> datetime | None:
    """Return when a run first was in a state."""
    return next((moment for name, moment in history if name == state), None)


def _is_terminated(history: list[tuple[str, datetime | None]]) -> datetime | None:
    """Return when someone asked for the end of a run; None where it was started again after that."""
    found = None
    for state, moment in history:
        if state in ("CANCELING", "CANCELED"):
            found = found or moment
        elif state in ("PENDING", "RUNNING"):
            found = None
    return found


def _text_lines(client: Any, path: str) -> Iterator[str]:
    """Yield the lines of an answer that is plain text."""
    answer = client._run_api.api_client.call_api(
        path, "GET", header_params={"Accept": "text/plain, application/json"}, auth_settings=["Bearer"],
        _preload_content=False, _return_http_data_only=True,
    )  # fmt: skip
    rest, size = b"", 0
    try:
        for piece in answer.stream(2**16):
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
            size += len(piece)
            if size > MOST_LOG_BYTES:
                break
    finally:
        answer.close()
    yield rest.decode(errors="replace")


def _read_experiment(experiment: Any) -> Experiment:
    return Experiment(experiment.experiment_id, experiment.display_name or "", experiment.namespace or "")


def _read_schedule(recurring: Any) -> Schedule:
    trigger = recurring.trigger.cron_schedule if recurring.trigger else None
    return Schedule(
        id=recurring.recurring_run_id,
        name=recurring.display_name or "",
        cron=(trigger.cron if trigger else None) or "",
        enabled=(recurring.mode or recurring.status) in ("ENABLED", "ENABLE"),
        experiment_id=recurring.experiment_id or "",
        created=_read_moment(recurring.created_at),
        description=recurring.description or "",
        namespace=recurring.namespace or "",
    )
