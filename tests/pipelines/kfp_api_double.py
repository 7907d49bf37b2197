"""A small real Kubeflow Pipelines API (v2beta1): HTTP on this host, and as strict as the real one on what it is sent.

It keeps experiments, runs and schedules, and checks a pipeline and its arguments before it takes them. A test decides
what becomes of a run (`stages`, `frames`), what goes wrong (`faults`), and reads what arrived (`requests`). Answers are
as those of a real server, which are recorded in tests/real_cluster: a run that has not ended has 1970 as its end, nodes
come in no order, and deleting a schedule deletes the workflows of its runs, while KFP shows these as RUNNING for ever.
"""

from __future__ import annotations

import json
import random
import re
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

API = "/apis/v2beta1"
MOST_PARAMETER_BYTES = 10_000
NOT_YET = "1970-01-01T00:00:00Z"
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
NEITHER_NOR = "is not optional, yet has neither default value nor user provided value"
EQUALS = (1, "EQUALS")
# google.rpc.Code beside the HTTP status.
CODES = {400: 3, 404: 5, 409: 6, 403: 7, 401: 16, 500: 13}
# Least and most of the six fields of cron.
BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


class Refused(Exception):
    """The answer is an error."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


@dataclass
class Fault:
    """What goes wrong with the next requests of a method whose path matches."""

    method: str
    path: str
    status: int
    body: str = '{"message": "a fault that was ordered"}'
    kind: str = "application/json"
    times: int = 1


@dataclass
class KfpApi:
    """The state behind the API. `stages`: the states that a new run passes through, one each time it is looked at."""

    multi_user: bool = True
    version: str = "2.17.0"
    token: str | None = None
    stages: tuple[str, ...] = ("PENDING",)
    experiments: dict = field(default_factory=dict)
    runs: dict = field(default_factory=dict)
    schedules: dict = field(default_factory=dict)
    faults: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    logs: dict = field(default_factory=dict)
    frames: list = field(default_factory=list)
    workflows: set = field(default_factory=set)
    most_enabled: int = 0
    endpoint: str = ""
    _clock: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self):
        """Give a time of its own to each object, so that sorting by it means something."""
        self._clock += timedelta(seconds=1)
        return self._clock.isoformat().replace("+00:00", "Z")

    def sent(self, method, path):
        """Return the bodies of the requests to a path."""
        return [body for verb, where, body in self.requests if (verb, where) == (method, f"{API}{path}")]

    @property
    def written(self):
        """All requests that were not just questions."""
        return [(verb, where) for verb, where, _ in self.requests if verb != "GET"]

    # What the API does, by method and path.

    def healthz(self, query, body):
        mode = {"multi_user": self.multi_user, "pipeline_store": "database"}
        return {"commit_sha": "0123abc", "tag_name": self.version, **mode}

    def create_experiment(self, query, body):
        self._check_namespace(body.get("namespace"))
        name = body.get("display_name") or refuse("experiment's name is empty")
        if any(each["display_name"] == name for each in self.experiments.values()):
            refuse(f"experiment {name} already exists", 409)
        return self._keep(self.experiments, "experiment_id", {**body, "storage_state": "AVAILABLE"})

    def list_experiments(self, query, body):
        self._check_namespace(query.get("namespace"))
        rows = [row for row in self.experiments.values() if row.get("namespace") == query.get("namespace")]
        return page("experiments", rows, query)

    def create_run(self, query, body):
        self._check_run(body)
        return self._new_run(body)

    def get_run(self, query, body, run_id):
        run = self.runs.get(run_id) or refuse_missing("run", run_id)
        if run.get("frames"):
            run.update(run["frames"].pop(0))
        elif run["stages"]:
            self._enter(run, run["stages"].pop(0))
        return shown(run)

    def play(self, run_id, frames):
        """Let a run pass through answers that were recorded, one each time it is looked at."""
        own = ("run_id", "experiment_id", "display_name", "recurring_run_id")
        kept = [{name: value for name, value in frame.items() if name not in own} for frame in frames]
        self.runs[run_id].update(frames=kept, stages=[])

    def put_run(self, experiment_id, answer):
        """Keep a run as it was recorded, in an experiment of this double."""
        self.runs[answer["run_id"]] = {**answer, "experiment_id": experiment_id, "stages": []}
        return answer["run_id"]

    def read_log(self, query, body, run_id, pod):
        # The real server answers with its own error, and 500, where neither the pod nor the archive has a log.
        return Text(self.logs[pod]) if pod in self.logs else refuse(f"Failed to read logs for run {run_id}", 500)

    def _enter(self, run, state):
        run["state"] = state
        run["state_history"].append({"state": state, "update_time": self.now()})
        if state in ENDED:
            run["finished_at"] = self.now()
            self.workflows.discard(run["run_id"])

    def list_runs(self, query, body):
        self._check_scope(query)
        return page("runs", [shown(row) for row in self._in_scope(self.runs, query)], query)

    def create_schedule(self, query, body):
        self._check_run(body)
        check_schedule(body)
        status = f"{body['mode']}D"
        namespace = self.experiments[body["experiment_id"]].get("namespace") or "kubeflow"
        kept = {**body, "status": status, "max_concurrency": str(body["max_concurrency"]), "namespace": namespace}
        kept = self._keep(self.schedules, "recurring_run_id", kept)
        self._count_enabled(kept["display_name"])
        return kept

    def get_schedule(self, query, body, schedule_id):
        return self.schedules.get(schedule_id) or refuse(f"recurring run {schedule_id} not found", 404)

    def list_schedules(self, query, body):
        self._check_scope(query)
        return page("recurringRuns", list(self._in_scope(self.schedules, query)), query)

    def switch_schedule(self, query, body, schedule_id, verb):
        schedule = self.get_schedule(query, body, schedule_id)
        schedule.update(status=f"{verb.upper()}D", mode=verb.upper())
        self._count_enabled(schedule["display_name"])
        return {}

    def _count_enabled(self, name):
        """Note how many schedules of one name were ever switched on at once."""
        on = [key for key in self.enabled if self.schedules[key]["display_name"] == name]
        self.most_enabled = max(self.most_enabled, len(on))

    def delete_schedule(self, query, body, schedule_id):
        self.get_schedule(query, body, schedule_id)
        del self.schedules[schedule_id]
        for run_id in [key for key, run in self.runs.items() if run.get("recurring_run_id") == schedule_id]:
            if run_id in self.workflows:
                # Kubernetes deletes what the ScheduledWorkflow owns. KFP does not note it.
                self.workflows.discard(run_id)
                self.runs[run_id]["stages"] = []
        return {}

    def list_pipelines(self, query, body):
        return page("pipelines", [], query)

    def tick(self, schedule_id, **state):
        """Start a run as the schedule's controller does when its time has come."""
        schedule = self.schedules[schedule_id]
        kept = {name: schedule[name] for name in ("experiment_id", "pipeline_spec", "runtime_config")}
        run = self._new_run({**kept, "display_name": f"{schedule['display_name']}-1", "recurring_run_id": schedule_id})
        self.runs[run["run_id"]]["stages"] = []
        self.end(run["run_id"], **state) if state else None
        return run["run_id"]

    def end(self, run_id, state="SUCCEEDED"):
        """Bring a run into a state, as its workflow does when it ends."""
        self._enter(self.runs[run_id], state)

    @property
    def enabled(self):
        """Ids of the schedules that are switched on."""
        return [key for key, schedule in self.schedules.items() if schedule["mode"] == "ENABLE"]

    def _new_run(self, body):
        run = {
            **body, "state": "PENDING", "storage_state": "AVAILABLE", "stages": list(self.stages),
            "finished_at": NOT_YET, "state_history": [{"state": "PENDING", "update_time": self.now()}],
        }  # fmt: skip
        kept = self._keep(self.runs, "run_id", run)
        self.workflows.add(kept["run_id"])
        answer = shown(kept)
        if self.frames:
            self.play(kept["run_id"], self.frames)
        return answer

    def _keep(self, table, key, row):
        row = {**row, key: str(uuid.uuid4()), "created_at": self.now()}
        table[row[key]] = row
        return row

    def _check_run(self, body):
        if body.get("experiment_id") not in self.experiments:
            refuse(f"experiment {body.get('experiment_id')} not found", 404)
        if not body.get("display_name"):
            refuse("the run's name is empty")
        check_pipeline(body.get("pipeline_spec") or refuse("no pipeline"), body.get("runtime_config") or {})

    def _check_namespace(self, namespace):
        if self.multi_user and not namespace:
            refuse("an experiment cannot have an empty namespace in multi-user mode")

    def _check_scope(self, query):
        if self.multi_user and not query.get("namespace") and not query.get("experiment_id"):
            refuse("in multi-user mode, a list needs a namespace or an experiment")

    def _in_scope(self, table, query):
        """Rows of the experiment, or of the namespace that their experiment is in."""
        for row in table.values():
            experiment = self.experiments[row["experiment_id"]]
            wanted = query.get("experiment_id")
            if wanted == row["experiment_id"] or (not wanted and experiment.get("namespace") == query.get("namespace")):
                yield row


def refuse(message, status=400):
    raise Refused(status, message)


def refuse_missing(kind, id_):
    """Answer as the real server does: tests/real_cluster/run-not-there.json."""
    refuse(f"Failed to get a {kind}: Failed to fetch {kind} {id_}: ResourceNotFoundError: Run {id_} not found", 404)


class Text(str):
    """An answer that is no JSON."""


def shown(run):
    """Return a run as the API shows it; its nodes are in no order, another one each time."""
    answer = {name: value for name, value in run.items() if name not in ("stages", "frames")}
    details = answer.get("run_details")
    if details and details.get("task_details"):
        tasks = list(details["task_details"])
        random.shuffle(tasks)
        answer["run_details"] = {**details, "task_details": tasks}
    return answer


def check_pipeline(sent, runtime_config):
    """Refuse a pipeline that does not parse strictly, and arguments that it does not take."""
    spec, platform = (sent["pipeline_spec"], sent.get("platform_spec")) if "pipeline_spec" in sent else (sent, None)
    try:
        pipeline = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        check_platform(json_format.ParseDict(platform or {}, pipeline_spec_pb2.PlatformSpec()))
    except json_format.ParseError as error:
        refuse(f"the pipeline does not parse: {error}")
    check_arguments(pipeline.root.input_definitions.parameters, runtime_config.get("parameters") or {})


def check_platform(platform):
    for executor in platform.platforms["kubernetes"].deployment_spec.executors.values():
        config = kubernetes_executor_config_pb2.KubernetesExecutorConfig()
        json_format.ParseDict(json_format.MessageToDict(executor), config)


def check_arguments(wanted, given):
    for name, parameter in wanted.items():
        if name in given:
            check_type(
                name, pipeline_spec_pb2.ParameterType.ParameterTypeEnum.Name(parameter.parameter_type), given[name]
            )
        elif not parameter.is_optional and not parameter.HasField("default_value"):
            refuse(f"parameter {name} {NEITHER_NOR}")
    if set(given) - set(wanted):
        refuse(f"parameter(s) provided are not required by pipeline: {', '.join(sorted(set(given) - set(wanted)))}")
    if len(json.dumps(given)) > MOST_PARAMETER_BYTES:
        refuse(f"the input parameter length exceed maximum size of {MOST_PARAMETER_BYTES}")


def check_type(name, kind, value):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        "NUMBER_INTEGER": number and value == int(value),
        "NUMBER_DOUBLE": number,
        "BOOLEAN": isinstance(value, bool),
        "STRING": isinstance(value, str),
        "STRUCT": isinstance(value, dict),
        "LIST": isinstance(value, list),
    }
    if not fits[kind]:
        refuse(f"input parameter {name} requires type {kind}, but the parameter value is {value!r}")


def check_schedule(body):
    if not 1 <= int(body.get("max_concurrency") or 0) <= 10:
        refuse(f"the max concurrency is out of range, support 1-10, received {body.get('max_concurrency')}")
    if body.get("mode") not in ("ENABLE", "DISABLE"):
        refuse(f"mode {body.get('mode')!r} is neither ENABLE nor DISABLE")
    fields = body["trigger"]["cron_schedule"]["cron"].split()
    if len(fields) != len(BOUNDS):
        refuse(f"schedule cron is not a supported format: {len(fields)} fields instead of 6")
    for text, (low, high) in zip(fields, BOUNDS, strict=True):
        numbers = [int(number) for number in re.findall(r"\d+", text.partition("/")[0])]
        if not re.fullmatch(r"[*?\w,/-]+", text) or any(not low <= number <= high for number in numbers):
            refuse(f"schedule cron is not a supported format: {text!r} is out of {low} to {high}")


def page(name, rows, query):
    """Filter, sort and cut a list as the query says; the token of the next page is where it begins."""
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        if predicate["operation"] not in EQUALS:
            refuse(f"operation {predicate['operation']} is not one of this double's")
        value = predicate.get("stringValue", predicate.get("string_value"))
        rows = [row for row in rows if row.get(predicate["key"]) == value]
    key, _, direction = (query.get("sort_by") or "created_at").partition(" ")
    if key not in ("created_at", "display_name"):
        refuse(f"cannot sort by {key}")
    rows = sorted(rows, key=lambda row: row[key], reverse=direction == "desc")
    begin, size = int(query.get("page_token") or 0), int(query.get("page_size") or 20)
    following = str(begin + size) if begin + size < len(rows) else ""
    return {name: rows[begin : begin + size], "total_size": len(rows), "next_page_token": following}


LOGS = r"/apis/v1alpha1/runs/([\w-]+)/nodes/([\w-]+)/log"
ROUTES = [
    ("GET", r"/healthz", KfpApi.healthz),
    ("GET", r"/pipelines", KfpApi.list_pipelines),
    ("POST", r"/experiments", KfpApi.create_experiment),
    ("GET", r"/experiments", KfpApi.list_experiments),
    ("POST", r"/runs", KfpApi.create_run),
    ("GET", r"/runs", KfpApi.list_runs),
    ("GET", r"/runs/([\w-]+)", KfpApi.get_run),
    ("GET", LOGS, KfpApi.read_log),
    ("POST", r"/recurringruns", KfpApi.create_schedule),
    ("GET", r"/recurringruns", KfpApi.list_schedules),
    ("GET", r"/recurringruns/([\w-]+)", KfpApi.get_schedule),
    ("DELETE", r"/recurringruns/([\w-]+)", KfpApi.delete_schedule),
    ("POST", r"/recurringruns/([\w-]+):(enable|disable)", KfpApi.switch_schedule),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        where = urlsplit(self.path)
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(text) if text else None
        api = self.server.api
        with self.server.lock:
            api.requests.append((self.command, where.path, body))
            try:
                result = self._result(api, where.path, dict(parse_qsl(where.query)), body)
                if isinstance(result, Text):
                    self._reply(200, result, "text/plain")
                else:
                    self._reply(200, json.dumps(result))
            except Refused as error:
                detail = {
                    "@type": "type.googleapis.com/google.rpc.Status", "code": CODES[error.status],
                    "message": str(error).rpartition(": ")[2],
                }  # fmt: skip
                said = {"message": str(error), "code": CODES[error.status], "details": [detail]}
                self._reply(error.status, json.dumps(said))
            except _Ordered as ordered:
                self._reply(ordered.fault.status, ordered.fault.body, ordered.fault.kind)

    do_GET = do_POST = do_DELETE = answer

    def _result(self, api, path, query, body):
        for fault in api.faults:
            if fault.times > 0 and fault.method == self.command and re.search(fault.path, path):
                fault.times -= 1
                raise _Ordered(fault)
        if api.token is not None and self.headers.get("Authorization") != f"Bearer {api.token}":
            refuse("request not authenticated", 401)
        for method, pattern, do in ROUTES:
            found = re.fullmatch(pattern if pattern == LOGS else API + pattern, path)
            if method == self.command and found:
                return do(api, query, body, *found.groups())
        return refuse(f"{self.command} {path} not found", 404)

    def _reply(self, status, text, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


class _Ordered(Exception):
    def __init__(self, fault):
        self.fault = fault


@contextmanager
def kfp_api(**how):
    """Serve an API of its own on a free port of this host."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.api, server.lock = KfpApi(**how), threading.Lock()
    server.api.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
