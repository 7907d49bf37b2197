"""`oatflow status` for a cluster: an experiment's runs step by step, and what its open round waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from oatflow.components.errors import ClusterError, OatflowError, RefusedInput
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.reporting.words import duration
from oatflow.components.rounds.opening import has_begun
from oatflow.components.store.store import open_store

from .kubeflow_client import Cluster, ClusterRefused, Experiment, Run
from .place import experiment_uri
from .run_steps import AT_WORK, STEPS, Step, find_failed_nodes, find_failed_steps, find_last_move, read_steps
from .status import status
from .step_events import read_wait

if TYPE_CHECKING:
    from oatflow.components.jobs.waiting import RunInCluster

MOST_RUNS, MOST_EXPERIMENTS = 5, 100
MOVING = ("RUNNING", "PENDING", "CANCELING", "PAUSED")
# A driver takes seconds, and a step renews its claim: after this, a run in which nothing moves is worth a doubt.
QUIET = timedelta(minutes=10)
# Where a step's name in KFP is not that in the ledger.
_NAMES_IN_KFP = {"fit": "fit-reward-model"}
_WIDTH = max(map(len, STEPS))
_INDENT = " " * 9


def find_run(namespace: str, run_id: str, workflow: str) -> RunInCluster:
    """Return what the Kubernetes API has of a run."""
    from oatflow.components.jobs.waiting import find_run

    return find_run(namespace, run_id, workflow)


def read_last_words(found: RunInCluster, pod: str) -> str | None:
    """Return what the Kubernetes API has of the end of a step's pod."""
    from oatflow.components.jobs.waiting import read_last_words

    return read_last_words(found, pod)


def full_report(
    cluster: Cluster, experiment: str, root: str | None, now: datetime, only: str | None = None
) -> dict[str, Any]:
    """Return what the cluster and the ledger have of an experiment, as plain JSON values.

    The ledger is the one below `root`, or that of the last run. One that cannot be read from here hides nothing of the
    cluster: `ledger_unread` says why. `only`: id of the one run to report.
    """
    known = cluster.experiment(experiment)
    kubernetes = _Kubernetes(_namespace(cluster, known))
    runs = [_one_run(cluster, known, only)] if only else cluster.runs(known.id, MOST_RUNS) if known else []
    given = next((run.arguments["ledger"] for run in runs if run.arguments.get("ledger")), None)
    ledger, unread = _read_ledger(experiment_uri(root, experiment) if root else given)
    open_round = ledger["open_round"] if ledger else None
    return {
        "experiment": experiment,
        "ledger": ledger,
        "ledger_unread": unread,
        "ledger_root": root or (_root_of(given) if given else None),
        "cluster": {
            "host": cluster.host,
            "namespace": kubernetes.namespace,
            "experiments": None if known else sorted(each.name for each in cluster.experiments(MOST_EXPERIMENTS)),
            "runs": [
                _report_run(cluster, kubernetes, run, open_round, now, newest=place == 0)
                for place, run in enumerate(runs)
            ],
        },
    }


def describe_cluster(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on the runs of a report, and on what the open round waits for."""
    found = report["cluster"]
    yield f"cluster  {found['host']}" + (f", namespace {found['namespace']}" if found["namespace"] else "")
    if found["experiments"] is not None:
        yield f"runs     none: {_no_such_experiment(report['experiment'], found['experiments'])}"
    elif not found["runs"]:
        yield "runs     none in this experiment yet"
    for run in found["runs"]:
        yield from _describe_run(run)
    yield from _describe_open_round(report)


def describe_failures(cluster: Cluster, run: Run) -> list[str]:
    """Return which steps of a run failed, and the last line of each one's log."""
    if run.terminated is not None:
        stopped = [step.name for step in read_steps(run) if step.state == "stopped"]
        return [f"the run was terminated at {_when(run.terminated)} during {', '.join(stopped) or 'no step of ours'}"]
    steps = read_steps(run)
    found = _Kubernetes(cluster.namespace).find_run(run)[0] if find_failed_steps(steps) else None
    lines = [f"{step.name} failed: {_last_line(cluster, run, found, step)}" for step in find_failed_steps(steps)]
    lines += [f"{name} failed, which is a node of Kubeflow's own" for name in find_failed_nodes(run)]
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


def _read_ledger(uri: str | None) -> tuple[dict[str, Any] | None, str]:
    """Return the status of the ledger, or why it cannot be read."""
    if uri is None:
        return None, "not known: no run names one; give it with --ledger"
    try:
        store = open_store(uri)
        if not has_begun(store):
            return None, f"{uri}: nothing there yet; the first round begins it"
        return status(Ledger(store)), ""
    except OatflowError as error:
        return None, f"not read from here: {error}"


def _root_of(uri: str) -> str:
    """Return the ledger root that an experiment's URI lies below."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path=parts.path.rpartition("/")[0]))


# From KFP's answers to plain values.


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
    gone = _gone(full, steps, found, bool(kubernetes.namespace), open_round, now) if moving else "no"
    if gone == "yes":
        steps = [_stopped(step, find_last_move(full)) for step in steps]
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
        "began": _iso(full.began),
        "ended": _iso(ended),
        "seconds": _seconds(full.began, ended or now),
        "terminated": _iso(full.terminated),
        "gone": gone,
        "moved": _iso(find_last_move(full)),
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
    seconds = _seconds(step.began, step.ended or (now if step.state in AT_WORK else None))
    return asdict(step) | {"began": _iso(step.began), "ended": _iso(step.ended), "seconds": seconds}


def _namespace(cluster: Cluster, experiment: Experiment | None) -> str:
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


def _gone(
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


def _stopped(step: Step, when: datetime | None) -> Step:
    """Return the step of a run that is gone, as it was left."""
    if step.state in AT_WORK:
        return replace(step, state="stopped", ended=when, note="")
    return replace(step, state="not reached") if step.state == "to come" else step


def _last_line(cluster: Cluster, run: Run, found: RunInCluster | None, step: Step) -> str:
    """Return the last line of a failed step: from KFP, else from its pod, else from KFP's archive of logs."""
    from oatflow.components.jobs.waiting import find_last_line

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
        return f"neither KFP nor the cluster gives its log here; try `kubectl logs -n {namespace} {step.pod} -c main`"
    return line


# From plain values to lines.


def _describe_run(run: Mapping[str, Any]) -> Iterator[str]:
    if not run["detailed"]:
        yield f"run      {run['name']!r} ({run['id']}): {_state_of_run(run)}"
        failed = [step["name"] for step in run["steps"] if step["state"] == "failed"]
        if failed:
            yield f"{_INDENT}failed: {', '.join(failed)}"
        return
    yield f"run      {run['name']!r}: {_state_of_run(run)}"
    yield f"{_INDENT}see {run['link']}"
    if run["error"]:
        yield f"{_INDENT}KFP says: {run['error']}"
    for round_ in range(1, run["rounds"] + 1):
        if run["rounds"] > 1:
            yield f"{_INDENT}round {round_} of this run's {run['rounds']}"
        for step in run["steps"]:
            if step["round"] == round_:
                yield from _describe_step(step, _INDENT + "  " * (run["rounds"] > 1))
    for name in run["failed_nodes"]:
        yield f"{_INDENT}also failed: {name}, a node of Kubeflow's own"
    yield from (f"{_INDENT}waits for: {trouble}" for trouble in run["pods"])
    if run["pods_unasked"] and run["state"] in MOVING:
        yield f"{_INDENT}its pods could not be asked: {run['pods_unasked']}"


def _describe_step(step: Mapping[str, Any], indent: str) -> Iterator[str]:
    took = duration(step["seconds"])
    words = {
        "done": f"done in {took}",
        "failed": f"FAILED after {took}",
        "stopped": f"stopped after {took}",
        "starting": f"starting for {took}",
        "running": f"running for {took}",
    }.get(step["state"], step["state"])
    attempt = f", attempt {step['attempt']}" if step["attempt"] > 1 else ""
    note = f": {step['note']}" if step["note"] and step["state"] != "failed" else ""
    yield f"{indent}{step['name']:{_WIDTH}}  {words}{attempt}{note}"
    if step["state"] == "failed" and step["error"]:
        yield f"{indent}{'':{_WIDTH}}  {step['error']}"


def _state_of_run(run: Mapping[str, Any]) -> str:
    """Return the state of a run in words, since when, and how long it took."""
    began, ended, took = _parse(run["began"]), _parse(run["ended"]), duration(run["seconds"])
    moved = _when(_parse(run["moved"]))
    if run["gone"] == "yes":
        return (
            f"gone. KFP still says {run['state']}, but its workflow no longer exists in namespace {run['namespace']} "
            f"of your kubeconfig's cluster. It began {_when(began)}; nothing has moved since {moved}"
        )
    if run["gone"] == "maybe":
        pods = f"kubectl get workflows,pods -n {run['namespace'] or 'NAMESPACE'} -l pipeline/runid={run['id']}"
        return (
            f"{run['state']} according to KFP since {_when(began)}, but nothing has moved since {moved}: it is gone, "
            f"or its pod cannot start; see `{pods}`"
        )
    if run["terminated"] and ended:
        return f"terminated at {_when(_parse(run['terminated']))}; it began {_when(began)} and took {took}"
    if ended:
        until = f"{ended:%H:%M:%S} UTC" if began and began.date() == ended.date() else _when(ended)
        return f"{run['state']}, {_when(began).removesuffix(' UTC')} to {until}, {took}"
    ending = f", being terminated since {_when(_parse(run['terminated']))}" if run["terminated"] else ""
    return f"{run['state']} since {_when(began)}, for {took} so far{ending}"


def _describe_open_round(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the open round waits for: people, a step, or a run to carry it on."""
    runs, round_ = report["cluster"]["runs"], report["ledger"]["open_round"] if report["ledger"] else None
    if round_ is None:
        yield from _describe_last_run(report, runs[0]) if runs else ()
        return
    step = _NAMES_IN_KFP.get(round_["next_step"], round_["next_step"])
    where = f"at its step {step}" if step else "before it is closed"
    holder = next((run for run in runs if run["id"] == round_["run"]), None)
    name = f"run {holder['name']!r}" if holder else f"run {round_['run']}"
    is_alive = holder is not None and holder["state"] in MOVING and holder["gone"] != "yes"
    people = round_["people"]
    is_at_work = is_alive and not (round_["free"] and holder and holder["gone"] == "maybe")
    if is_at_work and not (people and people["open"]):
        yield f"waits    round {round_['round']} is {where}; {name} works on it"
    elif people is not None:
        yield f"waits    round {round_['round']} waits for people: {_open_duels(people)}. {_how_to_label(report)}"
    elif holder is not None and holder["gone"] != "no":
        state = "is gone" if holder["gone"] == "yes" else "may be gone"
        stopped = f"round {round_['round']} stopped {where}: {name}, which worked on it, {state}"
        yield f"waits    {stopped}; {_carry_on(report)}"
    elif not round_["free"]:
        yield (
            f"waits    round {round_['round']} stopped {where}; {name} ({round_['owner']}), which does not run here, "
            f"holds its claim until {round_['until']}; then the next run takes it over"
        )
    else:
        yield (
            f"waits    round {round_['round']} stopped {where}: the claim of {name} ended at {round_['until']}; "
            f"{_carry_on(report)}"
        )


def _describe_last_run(report: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the experiment waits for, from its last run alone: its ledger has no open round, or is not read."""
    if report["ledger"] is None and _stopped_for_people(run):
        yield f"waits    for people: they have still to answer the duels of the last round. {_how_to_label(report)}"
    elif run["asks_people"] and (note := _note_of_running(run, "label")):
        yield f"waits    for people: {note}. {_how_to_label(report)}"
    elif run["gone"] == "yes" or run["state"] in ("FAILED", "CANCELED"):
        yield f"waits    for a new run: {_carry_on(report)}"


def _stopped_for_people(run: Mapping[str, Any]) -> bool:
    """Whether a run ended because people had still to answer, from what KFP alone shows."""
    states = {step["name"]: step["state"] for step in run["steps"] if step["round"] == run["rounds"]}
    return run["asks_people"] and run["state"] == "SUCCEEDED" and states.get("train") == "skipped"


def _note_of_running(run: Mapping[str, Any], name: str) -> str:
    return next((step["note"] for step in run["steps"] if (step["name"], step["state"]) == (name, "running")), "")


def _open_duels(people: Mapping[str, int]) -> str:
    if not people["open"]:
        return f"all {people['asked']} duels are answered, and the next run goes on with them"
    return f"{people['open']} of {people['asked']} duels are open ({people['answers']} answers)"


def _how_to_label(report: Mapping[str, Any]) -> str:
    label = f"oatflow label {report['experiment']}"
    return (
        f"`{label} --serve` opens them on this machine, `{label}` writes them as a page and tables for others"
        f"{_ledger_flag(report, ', with')}; when all are answered, the next run carries the round on"
    )


def _carry_on(report: Mapping[str, Any]) -> str:
    submit = f"oatflow submit --experiment {report['experiment']}{_ledger_flag(report)}"
    return f"`{submit} ...` with the same settings, or the next run of its schedule, carries the round on"


def _ledger_flag(report: Mapping[str, Any], before: str = "") -> str:
    return f"{before} --ledger '{report['ledger_root']}'" if report["ledger_root"] else ""


def _no_such_experiment(name: str, there: Sequence[str]) -> str:
    if not there:
        return "this Kubeflow has no experiments yet"
    return f"this Kubeflow has no experiment {name!r}; it has {', '.join(there)}"


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment else None


def _parse(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _seconds(began: datetime | None, ended: datetime | None) -> float | None:
    return max((ended - began).total_seconds(), 0.0) if began and ended else None


def _when(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "unknown"
