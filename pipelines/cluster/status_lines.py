"""The lines that `oatflow status` prints of an experiment's runs on a cluster, and of what its open round waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from oatflow.components.reporting.words import duration

from .run_steps import STEPS
from .status import MOVING, format_time

# Where a step's name in KFP is not that in the ledger.
_NAMES_IN_KFP = {"fit": "fit-reward-model"}
_WIDTH = max(map(len, STEPS))
_INDENT = " " * 9


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
            yield f"{_INDENT}round {round_} of {run['rounds']} in this run"
        for step in run["steps"]:
            if step["round"] == round_:
                yield from _describe_step(step, _INDENT + "  " * (run["rounds"] > 1))
    for name in run["failed_nodes"]:
        yield f"{_INDENT}also failed: Kubeflow's own task {name}"
    yield from (f"{_INDENT}waits for: {trouble}" for trouble in run["pods"])
    if run["pods_unasked"] and run["state"] in MOVING:
        yield f"{_INDENT}its pods could not be read: {run['pods_unasked']}"


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
    began, ended, took = _parse_time(run["began"]), _parse_time(run["ended"]), duration(run["seconds"])
    moved = format_time(_parse_time(run["moved"]))
    if run["gone"] == "yes":
        return (
            f"gone. KFP still says {run['state']}, but its workflow no longer exists in namespace {run['namespace']} "
            f"of the cluster in your kubeconfig. It began {format_time(began)}; nothing has changed since {moved}"
        )
    if run["gone"] == "maybe":
        pods = f"kubectl get workflows,pods -n {run['namespace'] or 'NAMESPACE'} -l pipeline/runid={run['id']}"
        return (
            f"{run['state']} according to KFP since {format_time(began)}, but nothing has changed since {moved}: "
            f"its workflow is gone, or a pod of it cannot start; look at `{pods}`"
        )
    if run["terminated"] and ended:
        stopped = format_time(_parse_time(run["terminated"]))
        return f"terminated at {stopped}; it began {format_time(began)} and took {took}"
    if ended:
        until = f"{ended:%H:%M:%S} UTC" if began and began.date() == ended.date() else format_time(ended)
        return f"{run['state']}, {format_time(began).removesuffix(' UTC')} to {until}, {took}"
    ending = f", being terminated since {format_time(_parse_time(run['terminated']))}" if run["terminated"] else ""
    return f"{run['state']} since {format_time(began)}, for {took} so far{ending}"


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
    elif people is not None and not people["open"]:
        yield f"waits    for a new run: people have answered all {people['asked']} duels; {_carry_on(report)}"
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
        yield f"waits    for people: they still have to answer the duels of the last round. {_how_to_label(report)}"
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
    return f"{people['open']} of {people['asked']} duels are open, and lack {people['answers']} answers in all"


def _how_to_label(report: Mapping[str, Any]) -> str:
    label = f"oatflow label {report['experiment']}{_ledger_flag(report)}"
    return (
        f"`{label} --serve` shows the duels in a browser on this machine; without --serve it writes a page and tables "
        "to send to people. When all are answered, the next run carries the round on"
    )


def _carry_on(report: Mapping[str, Any]) -> str:
    submit = f"oatflow submit --experiment {report['experiment']}{_ledger_flag(report)}"
    return f"`{submit} ...` with the same settings, or the next run of its schedule, carries the round on"


def _ledger_flag(report: Mapping[str, Any]) -> str:
    return f" --ledger '{report['ledger_root']}'" if report["ledger_root"] else ""


def _no_such_experiment(name: str, there: Sequence[str]) -> str:
    if not there:
        return "this Kubeflow has no experiments yet"
    return f"this Kubeflow has no experiment {name!r}; it has {', '.join(there)}"


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
