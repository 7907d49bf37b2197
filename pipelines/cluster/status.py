"""`oatflow status` for a cluster: an experiment's runs, step by step, as KFP, Kubernetes and the ledger have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from oatflow.components.errors import ClusterError, OatflowError, RefusedInput
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.beginning import has_begun
from oatflow.components.store.store import open_store

from ..data.ledger_status import status
from ..laptop.place import experiment_uri
from .kubeflow_client import Cluster, ClusterRefused, Experiment, Run
from .run_steps import AT_WORK, Step, find_failed_nodes, find_failed_steps, find_last_move, read_steps
from .step_events import read_wait

if TYPE_CHECKING:
    from oatflow.components.jobs.run_in_cluster import RunInCluster

MOST_RUNS, MOST_EXPERIMENTS = 5, 100
MOVING = ("RUNNING", "PENDING", "CANCELING", "PAUSED")
# A driver takes seconds, and a step renews its claim: after this, a run in which nothing moves is worth a doubt.
QUIET = timedelta(minutes=10)


def find_run(namespace: str, run_id: str, workflow: str) -> RunInCluster:
    """Return what the Kubernetes API has of a run."""
    from oatflow.components.jobs.run_in_cluster import find_run

    return find_run(namespace, run_id, workflow)


def read_last_words(found: RunInCluster, pod: str) -> str | None:
    """Return what the Kubernetes API has of the end of a step's pod."""
    from oatflow.components.jobs.run_in_cluster import read_last_words

    return read_last_words(found, pod)


def full_report(
    cluster: Cluster, experiment: str, root: str | None, now: datetime, only: str | None = None
) -> dict[str, Any]:
    """Return what the cluster and the ledger have of an experiment, as plain JSON values.

    The ledger is the one below `root`, or that of the last run. One that cannot be read from here hides nothing of the
    cluster: `ledger_unread` says why. `only`: id of the one run to report.
    """
    known = cluster.experiment(experiment)
    kubernetes = _Kubernetes(_find_namespace(cluster, known))
    runs = [_one_run(cluster, known, only)] if only else cluster.runs(known.id, MOST_RUNS) if known else []
    runs = runs or _find_elsewhere(cluster, experiment)
    given = next((run.arguments["ledger"] for run in runs if run.arguments.get("ledger")), None)
    ledger, unread = _read_ledger(experiment_uri(root, experiment) if root else given)
    open_round = ledger["open_round"] if ledger else None
    if open_round is not None and not only and open_round["run"] not in [run.id for run in runs]:
        runs = _find_holder(cluster, open_round["run"]) + runs
    return {
        "experiment": experiment,
        "ledger": ledger,
        "ledger_unread": unread,
        "ledger_root": root or (_root_of(given) if given else None),
        "cluster": {
            "host": cluster.host,
            "namespace": kubernetes.namespace,
            "experiments": None
            if known or runs
            else sorted(each.name for each in cluster.experiments(MOST_EXPERIMENTS)),
            "runs": [
                _report_run(cluster, kubernetes, run, open_round, now, newest=place == 0)
                for place, run in enumerate(runs)
            ],
        },
    }


def describe_failures(cluster: Cluster, run: Run) -> list[str]:
    """Return which steps of a run failed, and the last line of each one's log."""
    if run.terminated is not None:
        stopped = [step.name for step in read_steps(run) if step.state == "stopped"]
        return [
            f"the run was terminated at {format_time(run.terminated)} during {', '.join(stopped) or 'no step of ours'}"
        ]
    steps = read_steps(run)
    found = _Kubernetes(cluster.namespace).find_run(run)[0] if find_failed_steps(steps) else None
    lines = [f"{step.name} failed: {_last_line(cluster, run, found, step)}" for step in find_failed_steps(steps)]
    lines += [f"Kubeflow's own task {name} failed" for name in find_failed_nodes(run)]
    return lines or [run.error or f"KFP names no step that failed; see {cluster.run_link(run.id)}"]


def read_last_line(cluster: Cluster, run: Run, step: Step) -> str:
    """Return the last line of a failed step."""
    return _last_line(cluster, run, _Kubernetes(cluster.namespace).find_run(run)[0], step)


def _one_run(cluster: Cluster, experiment: Experiment | None, run_id: str) -> Run:
    """Return one run. Raises `RefusedInput` with those that there are, where there is none of that id."""
    try:
        return cluster.run(run_id)
    except ClusterRefused as error:
        if not error.is_missing:
            raise
        there = [f"{run.id} ({run.name})" for run in cluster.runs(experiment.id, MOST_RUNS)] if experiment else []
        hint = f"the last runs of this experiment: {', '.join(there)}" if there else "this experiment has none"
        raise RefusedInput(f"run={run_id!r}: there is no such run in {cluster.host}; {hint}") from error


def _find_elsewhere(cluster: Cluster, experiment: str) -> list[Run]:
    """Return the last runs with a ledger of this name, in whatever experiment of KFP's a user started them.

    A run that is started in KFP's UI is in KFP's own experiment, Default, unless the user chooses another one.
    """
    ledgers = [(run, urlsplit(str(run.arguments.get("ledger", ""))).path) for run in cluster.newest_runs()]
    return [run for run, path in ledgers if path.rpartition("/")[2] == experiment][:MOST_RUNS]


def _find_holder(cluster: Cluster, run_id: str) -> list[Run]:
    """Return the run that holds the open round, where KFP has it: not in the experiment of this name."""
    try:
        return [cluster.run(run_id)]
    except ClusterRefused:
        # A run of another cluster, or of `oatflow align`.
        return []


def _read_ledger(uri: str | None) -> tuple[dict[str, Any] | None, str]:
    """Return the status of the ledger, or why it cannot be read."""
    if uri is None:
        return None, "not known: no run names one; give it with --ledger"
    try:
        ledger = Ledger(open_store(uri))
        if not has_begun(ledger):
            return None, f"{uri}: nothing there yet; the first round begins it"
        return status(ledger), ""
    except OatflowError as error:
        return None, f"not read from here: {error}"


def _root_of(uri: str) -> str:
    """Return the ledger root that an experiment's URI lies below."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path=parts.path.rpartition("/")[0]))


def _report_run(
    cluster: Cluster, kubernetes: _Kubernetes, run: Run, open_round: Mapping[str, Any] | None, now: datetime,
    newest: bool,
) -> dict[str, Any]:  # fmt: skip
    moving = run.state in MOVING
    full = cluster.run(run.id) if moving or newest or run.state == "FAILED" else run
    steps = read_steps(full)
    found, unasked = None, ""
    if moving or (newest and find_failed_steps(steps)):
        found, unasked = kubernetes.find_run(full)
    gone = _describe_gone(full, steps, found, bool(kubernetes.namespace), open_round, now) if moving else "no"
    if gone == "yes":
        steps = [_describe_stopped(step, find_last_move(full)) for step in steps]
    if newest and moving:
        steps = [replace(step, note=read_wait(cluster, full, step) or step.note) for step in steps]
    if newest:
        steps = [
            replace(step, error=_last_line(cluster, full, found, step)) if step.state == "failed" else step
            for step in steps
        ]
    ended = find_last_move(full) if gone == "yes" else full.ended
    return {
        "id": full.id,
        "name": full.name,
        "state": full.state,
        "began": _to_iso(full.began),
        "ended": _to_iso(ended),
        "seconds": _count_seconds(full.began, ended or now),
        "terminated": _to_iso(full.terminated),
        "gone": gone,
        "moved": _to_iso(find_last_move(full)),
        "error": full.error,
        "link": cluster.run_link(full.id),
        "scheduled": bool(full.schedule),
        "ledger": full.arguments.get("ledger"),
        "asks_people": full.arguments.get("preference_oracle") == "human",
        "rounds": max((step.round for step in steps), default=1),
        "steps": [_report_step(step, now) for step in steps] if moving or newest or find_failed_steps(steps) else [],
        "failed_nodes": find_failed_nodes(full),
        "detailed": newest or (moving and gone != "yes"),
        "namespace": found.namespace if found else kubernetes.namespace or None,
        "pods": list(found.troubles) if found and moving else [],
        "pods_unasked": unasked,
    }


def _report_step(step: Step, now: datetime) -> dict[str, Any]:
    seconds = _count_seconds(step.began, step.ended or (now if step.state in AT_WORK else None))
    return asdict(step) | {"began": _to_iso(step.began), "ended": _to_iso(step.ended), "seconds": seconds}


def _find_namespace(cluster: Cluster, experiment: Experiment | None) -> str:
    """Return the namespace of an experiment's pods: as given, as the experiment says, or that of KFP's schedules.

    "" where none of these is known. Where Kubeflow has one namespace for all, only schedules name it.
    """
    known = cluster.namespace or (experiment.namespace if experiment else "")
    if known:
        return known
    try:
        return next((each.namespace for each in cluster.schedules() if each.namespace), "")
    except ClusterError:
        # Only a way to find the namespace: without it, the usual ones are searched.
        return ""


class _Kubernetes:
    """The Kubernetes API, as far as it is reached from here; what fails once is not tried again for the next run."""

    def __init__(self, namespace: str):
        self.namespace, self._problem = namespace, ""

    def find_run(self, run: Run) -> tuple[RunInCluster | None, str]:
        """Return what it has of a run, or why it could not be asked."""
        if not self._problem:
            try:
                return find_run(self.namespace, run.id, run.workflow), ""
            except ClusterError as error:
                # Its first sentence: what follows is about the settings of a job.
                self._problem = str(error).partition(". ")[0]
        return None, self._problem


def _describe_gone(
    run: Run, steps: Sequence[Step], found: RunInCluster | None, is_right_namespace: bool,
    open_round: Mapping[str, Any] | None, now: datetime,
) -> str:  # fmt: skip
    """Return whether the workflow of a run that KFP calls RUNNING is gone: "yes", "maybe" or "no".

    KFP does not note that a workflow was deleted. Sure is: its namespace has no Workflow of that name. Where that
    cannot be asked, a run is in doubt in which nothing has moved for long while its claim ran out, or while a driver
    has not ended, or of which no pod was found.
    """
    if found is not None and found.is_here:
        return "no"
    if found is not None and found.workflow is False and is_right_namespace:
        return "yes"
    moved = find_last_move(run)
    if moved is None or now - moved < QUIET:
        return "no"
    claim_lapsed = open_round is not None and open_round["run"] == run.id and open_round["free"]
    in_driver = any(step.state == "starting" for step in steps)
    return "maybe" if claim_lapsed or in_driver or found is not None else "no"


def _describe_stopped(step: Step, when: datetime | None) -> Step:
    """Return the step of a run that is gone, as it was left."""
    if step.state in AT_WORK:
        return replace(step, state="stopped", ended=when, note="")
    return replace(step, state="not reached") if step.state == "to come" else step


def _last_line(cluster: Cluster, run: Run, found: RunInCluster | None, step: Step) -> str:
    """Return the last line of a failed step: from KFP, else from its pod, else from KFP's archive of logs."""
    from oatflow.components.jobs.run_in_cluster import find_last_line

    if step.error:
        return step.error
    if not step.pod:
        return step.note or "it has no pod"
    try:
        line = read_last_words(found, step.pod) if found is not None else None
    except ClusterError:
        # KFP can read the log of a pod that this account may not, or that is gone.
        line = None
    try:
        line = line or find_last_line(cluster.step_log(run.id, step.pod)) or "its log is empty"
    except ClusterError:
        namespace = found.namespace if found is not None else cluster.namespace or "NAMESPACE"
        return f"neither KFP nor Kubernetes returned its log; try `kubectl logs -n {namespace} {step.pod} -c main`"
    return line


def _to_iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment else None


def _count_seconds(began: datetime | None, ended: datetime | None) -> float | None:
    return max((ended - began).total_seconds(), 0.0) if began and ended else None


def format_time(moment: datetime | None) -> str:
    """Return a time as people read it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "unknown"
