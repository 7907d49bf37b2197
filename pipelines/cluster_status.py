"""`oatflow status` for a cluster: an experiment's runs there, and what a stuck round waits for, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from oatflow.components.errors import OatflowError, RefusedInput
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.opening import has_begun
from oatflow.components.store.store import open_store

from .cron import check_cron, in_words, next_times
from .kubeflow_client import Cluster, Run, Schedule, Task
from .place import experiment_uri
from .status import status
from .submission import experiment_of, our_schedules

MOST_RUNS, MOST_SCHEDULED = 5, 50
MOVING = ("RUNNING", "PENDING", "CANCELING", "PAUSED")
# What KFP calls the pod that does the work of a step.
_WORKER = "executor"


def pod_troubles(namespace: str, run_id: str) -> list[str]:
    """Say what the pods of a run wait for, and those of its training, as the Kubernetes API tells it."""
    from oatflow.components.jobs.waiting import pod_troubles

    return pod_troubles(namespace, run_id)


def cluster_status(cluster: Cluster, experiment: str) -> dict[str, Any]:
    """Return the experiment's last runs, newest first, as plain JSON values."""
    experiment_id = cluster.experiment_id(experiment)
    runs = cluster.runs(experiment_id, MOST_RUNS) if experiment_id else []
    return {
        "host": cluster.host,
        "namespace": cluster.namespace,
        "runs": [_run(cluster, run) for run in runs],
    }


def describe_runs(report: Mapping[str, Any], open_round: Mapping[str, Any] | None) -> Iterator[str]:
    """Say in lines how the runs stand. `open_round` is what the ledger says of the round that is being worked on."""
    yield f"cluster  {report['host']}, namespace {report['namespace'] or 'not given'}"
    if not report["runs"]:
        yield "runs     none in this experiment"
    for run in report["runs"]:
        yield f"run      {run['name']!r} ({run['id']}): {run['state']} since {run['since'] or 'unknown'}"
        if run["error"]:
            yield f"         it said: {run['error']}"
        for task in run["tasks"]:
            said = f": {task['error']}" if task["error"] else ""
            yield f"         step {task['name']}: {task['state']} since {task['since'] or 'unknown'}{said}"
        yield from (f"         pods: {trouble}" for trouble in run["pods"])
    yield from _waits(report["runs"], open_round)


def failures(run: Run) -> list[str]:
    """Say which steps of a run failed, and what they said."""
    found = [f"step {name}: {task.error or task.state}" for name, task in _leaves(run.tasks, ("FAILED",))]
    return list(dict.fromkeys(found)) or [run.error or "the API names no step; look at the run in the UI"]


def _waits(runs: list[Mapping[str, Any]], round_: Mapping[str, Any] | None) -> Iterator[str]:
    """Say what the open round waits for: a step, and the run that has claimed it."""
    if round_ is None:
        return
    moving = [run for run in runs if run["state"] in MOVING]
    missing = round_["missing"]
    step = f"its step {missing[0]}" if missing else "being closed"
    holder = next((run for run in moving if run["id"] == round_["run"]), None)
    if holder is not None:
        yield f"waits    round {round_['round']} waits for {step}, which run {holder['name']!r} works on"
    elif not round_["free"]:
        yield (
            f"waits    round {round_['round']} waits for {step}; run {round_['run']} ({round_['owner']}), which is not "
            f"running here, has claimed it until {round_['until']}: then the next run takes it over"
        )
    else:
        yield (
            f"waits    round {round_['round']} waits for {step}, and nobody works on it: its claim by run "
            f"{round_['run']} ended at {round_['until']}; start a run, it carries the round on"
        )


def full_report(cluster: Cluster, experiment: str, root: str | None) -> dict[str, Any]:
    """Return what the cluster and the ledger say, the ledger being the one named, or that of the last run.

    A ledger that cannot be read from here hides nothing of the cluster: `ledger_unread` says why.
    """
    report: dict[str, Any] = {"ledger": None, "ledger_unread": "", "cluster": cluster_status(cluster, experiment)}
    given = next((run["ledger"] for run in report["cluster"]["runs"] if run["ledger"]), None)
    uri = experiment_uri(root, experiment) if root else given
    if uri is None:
        return report | {"ledger_unread": "not known: no run names one; give it with --ledger"}
    try:
        store = open_store(uri)
        if not has_begun(store):
            return report | {"ledger_unread": f"{uri}: nothing there yet; the first round begins it"}
        return report | {"ledger": status(Ledger(store))}
    except OatflowError as error:
        return report | {"ledger_unread": f"not read from here: {error}"}


def schedule_report(cluster: Cluster, now: datetime) -> list[dict[str, Any]]:
    """Return the schedules of all experiments, with their next and their last run, as plain JSON values."""
    return [
        {
            "experiment": experiment_of(schedule),
            "id": schedule.id,
            "cron": schedule.cron,
            "enabled": schedule.enabled,
            "words": in_words(schedule.cron)
            if _is_ours(schedule.cron)
            else f"cron {schedule.cron!r}, not set by oatflow",
            "next": _when(next_times(schedule.cron, now, 1)[0])
            if schedule.enabled and _is_ours(schedule.cron)
            else None,
            "last": _last_state(cluster, schedule),
        }
        for schedule in our_schedules(cluster)
    ]


def describe_schedules(report: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say in lines which schedules there are."""
    if not report:
        yield "no schedules; `oatflow schedule set` creates one"
    for each in report:
        coming = f"next {each['next'] or 'not known'}" if each["enabled"] else "switched off"
        yield f"{each['experiment']}: {each['words']}; {coming}; last run: {each['last'] or 'none yet'}"


def _is_ours(cron: str) -> bool:
    """Whether an expression is one that `oatflow schedule set` takes; KFP and its UI take others, too."""
    try:
        check_cron(cron)
    except RefusedInput:
        return False
    return True


def _last_state(cluster: Cluster, schedule: Schedule) -> str | None:
    runs = cluster.runs(schedule.experiment_id, MOST_SCHEDULED)
    return next((run.state for run in runs if run.schedule == schedule.id), None)


def _run(cluster: Cluster, run: Run) -> dict[str, Any]:
    moving = run.state in MOVING
    full = cluster.run(run.id) if moving or run.state == "FAILED" else run
    tasks = _leaves(full.tasks, MOVING if moving else ("FAILED",))
    return {
        "id": run.id,
        "name": run.name,
        "state": full.state,
        "since": _when(full.finished or full.created),
        "error": full.error,
        "link": cluster.run_link(run.id),
        "scheduled": bool(run.schedule),
        "ledger": run.arguments.get("ledger"),
        "tasks": [{"name": name, "state": task.state, "since": _when(task.since), "error": task.error}
                  for name, task in tasks],
        "pods": _pods(cluster.namespace, run.id) if moving else [],
    }  # fmt: skip


def _pods(namespace: str, run_id: str) -> list[str]:
    try:
        return pod_troubles(namespace, run_id)
    except OatflowError as error:
        return [f"not asked: {error}"]


def _leaves(tasks: tuple[Task, ...], states: tuple[str, ...]) -> list[tuple[str, Task]]:
    """Return the tasks in one of the states that have no such task in them, with the name of their step."""
    by_id = {task.id: task for task in tasks}
    found = [task for task in tasks if task.state in states]
    parents = {task.parent for task in found}
    return [(_step(task, by_id), task) for task in found if task.id not in parents]


def _step(task: Task, by_id: Mapping[str, Task]) -> str:
    """Name the step that a pod belongs to: `executor` says nothing, `sample` does."""
    parent = by_id.get(task.parent)
    return parent.name if task.name == _WORKER and parent is not None else task.name


def _when(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment else None
