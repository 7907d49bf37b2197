"""The schedule of an experiment: set, listed and deleted without ending a run that it has started.

KFP cannot change a schedule, and deleting one deletes the workflows that it owns, those that run as well. So a schedule
whose run is under way is switched off, and deleted by a later command, when the run has ended. Of several schedules of
an experiment, at most one is switched on, and that one counts; the older ones are what `set` has replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import groupby
from typing import Any

from oatflow.components.errors import ClusterError, RefusedInput
from oatflow.components.settings import did_you_mean

from .cron import check_cron, in_words, next_times
from .kubeflow_client import Cluster, Package, Run, Schedule

PREFIX = "oatflow-"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_SET_BY = "Set by oatflow; settings "


@dataclass(frozen=True, slots=True)
class Kept:
    """A schedule that is switched off and not deleted yet, and its runs that are under way."""

    schedule: Schedule
    runs: Sequence[Run]


@dataclass
class Removal:
    """What became of schedules that are to go. `ended`: runs that ended with theirs; `problems`: what went wrong."""

    deleted: list[Schedule] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    ended: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Setting:
    """What `set_schedule` did ("created", "switched" on or off, "unchanged"), and the schedules that it replaces."""

    schedule: Schedule
    done: str
    replaced: Sequence[Schedule]


def set_schedule(cluster: Cluster, experiment: str, package: Package, cron: str, enabled: bool) -> Setting:
    """Make this the experiment's schedule. The ones before it are switched off, and left for `remove_schedules`.

    The new one is created switched off, so that two are never on at once. Where a call fails, the one before is on
    again. Nothing is done where the schedule is as wanted. Raises `ClusterError`.
    """
    name, mark = schedule_name(experiment), f"{_SET_BY}{_digest_version(package, cron)}"
    before = _newest_first(schedule for schedule in cluster.schedules() if schedule.name == name)
    current = _find_current(before)
    if current is not None and current.description == mark:
        others = [schedule for schedule in before if schedule.id != current.id]
        _switch_over(cluster, [each for each in others if each.enabled], current if enabled else None)
        if current.enabled == enabled:
            return Setting(current, "unchanged", others)
        if not enabled:
            cluster.switch_schedule(current, enabled=False)
        return Setting(current, "switched", others)
    created = cluster.create_schedule(cluster.need_experiment(experiment), name, cron, package, False, mark)
    try:
        _switch_over(cluster, [each for each in before if each.enabled], created if enabled else None)
    except ClusterError as error:
        _take_back(cluster, created, error)
        raise
    return Setting(created, "created", before)


def remove_schedules(cluster: Cluster, schedules: Iterable[Schedule], now: bool = False) -> Removal:
    """Delete schedules that have no run under way, and switch the others off. `now`: delete these as well."""
    removal = Removal()
    for schedule in schedules:
        try:
            if schedule.enabled:
                cluster.switch_schedule(schedule, enabled=False)
            runs = find_runs_under_way(cluster, schedule)
            if runs and not now:
                removal.kept.append(Kept(schedule, runs))
                continue
            cluster.delete_schedule(schedule)
            removal.deleted.append(schedule)
            removal.ended += runs
        except ClusterError as error:
            removal.problems.append(str(error))
    return removal


def find_schedules(cluster: Cluster, experiment: str) -> list[Schedule]:
    """Return the experiment's schedule and those that it replaced. Raises `RefusedInput` if there is none."""
    ours = our_schedules(cluster)
    found = [schedule for schedule in ours if schedule.name == schedule_name(experiment)]
    if not found:
        names = sorted({experiment_of(schedule) for schedule in ours})
        hint = did_you_mean(experiment, names) if names else "there are none at all"
        raise RefusedInput(f"schedule={experiment!r}: there is none of that name in {cluster.host}; {hint}")
    return found


def find_replaced_schedules(cluster: Cluster) -> list[Schedule]:
    """Return the schedules of all experiments that are switched off and older than the one that counts.

    A schedule that a user switched off and did not replace is none of them.
    """
    found = []
    for _, group in groupby(our_schedules(cluster), key=lambda schedule: schedule.name):
        schedules = _newest_first(group)
        current = _find_current(schedules)
        found += [
            each for each in schedules if current and not each.enabled and _measure_age(each) < _measure_age(current)
        ]
    return found


def find_runs_under_way(cluster: Cluster, schedule: Schedule) -> list[Run]:
    """Return the runs of a schedule that have not ended; one whose workflow no longer exists is none of them.

    All of its runs are looked at: an old one may have been started again with KFP's *Retry*.
    """
    return [
        run for run in cluster.runs_of_schedule(schedule)
        if not run.has_ended and not is_gone(cluster.run(run.id), schedule)
    ]  # fmt: skip


def is_gone(run: Run, schedule: Schedule) -> bool:
    """Whether the workflow of a schedule's run no longer exists, asked of the Kubernetes API where that is reached.

    A kubeconfig may name another cluster than the one of KFP: its answer counts where it has the schedule's own object.
    """
    from oatflow.components.jobs.run_in_cluster import find_run, has_schedule

    try:
        found = find_run(schedule.namespace, run.id, run.workflow)
        return found.workflow is False and not found.pods and has_schedule(schedule.namespace, schedule.id)
    except ClusterError:
        return False


def our_schedules(cluster: Cluster) -> list[Schedule]:
    """Return the schedules of experiments, by name."""
    ours = [schedule for schedule in cluster.schedules() if schedule.name.startswith(PREFIX)]
    return sorted(ours, key=lambda schedule: schedule.name)


def schedule_name(experiment: str) -> str:
    """Return what an experiment's schedule is called in Kubeflow Pipelines."""
    return f"{PREFIX}{experiment}"


def experiment_of(schedule: Schedule) -> str:
    """Return the experiment that a schedule carries on."""
    return schedule.name.removeprefix(PREFIX)


def report_schedules(cluster: Cluster, now: datetime) -> list[dict[str, Any]]:
    """Return the schedules of all experiments, with their next and their last run, as plain JSON values."""
    replaced = {schedule.id for schedule in find_replaced_schedules(cluster)}
    return [_report_change(cluster, schedule, schedule.id in replaced, now) for schedule in our_schedules(cluster)]


def describe_schedules(report: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each schedule."""
    if not report:
        yield "no schedules; `oatflow schedule set` creates one"
    for each in report:
        under_way = f"run {', '.join(each['under_way'])}" if each["under_way"] else ""
        if each["replaced"]:
            state = f"switched off; it is deleted when {under_way or 'its run'} has ended"
            yield f"{each['experiment']}: replaced ({each['id']}); {state}"
            continue
        coming = f"next {each['next'] or 'not known'}" if each["enabled"] else "switched off"
        going_on = f"; {under_way} is under way" if under_way and not each["enabled"] else ""
        yield f"{each['experiment']}: {each['words']}; {coming}{going_on}; last run: {each['last'] or 'none yet'}"


def _report_change(cluster: Cluster, schedule: Schedule, replaced: bool, now: datetime) -> dict[str, Any]:
    known = _is_known(schedule.cron)
    # One at a time: the newest is the one that may be under way.
    runs = cluster.runs_of_schedule(schedule, most=1)
    return {
        "experiment": experiment_of(schedule),
        "id": schedule.id,
        "cron": schedule.cron,
        "enabled": schedule.enabled,
        "replaced": replaced,
        "words": in_words(schedule.cron) if known else f"cron {schedule.cron!r}, not set by oatflow",
        "next": f"{next_times(schedule.cron, now, 1)[0]:%Y-%m-%d %H:%M:%S} UTC" if schedule.enabled and known else None,
        "last": runs[0].state if runs else None,
        "under_way": [run.id for run in runs if not run.has_ended],
    }


def _switch_over(cluster: Cluster, before: Sequence[Schedule], after: Schedule | None) -> None:
    """Switch schedules off and then one on. Where that fails, those that were on are on again."""
    off: list[Schedule] = []
    try:
        for schedule in before:
            off.append(schedule)
            cluster.switch_schedule(schedule, enabled=False)
        if after is not None and not after.enabled:
            cluster.switch_schedule(after, enabled=True)
    except ClusterError as error:
        _switch_back(cluster, off, error)
        raise


def _switch_back(cluster: Cluster, off: Sequence[Schedule], why: ClusterError) -> None:
    try:
        for schedule in off:
            cluster.switch_schedule(schedule, enabled=True)
    except ClusterError as error:
        raise ClusterError(
            f"{why}; and the old schedule, {off[0].name!r} ({off[0].id}), may be switched off now: {error}. Run the "
            "command again, or switch it on in the UI"
        ) from error


def _take_back(cluster: Cluster, created: Schedule, why: ClusterError) -> None:
    try:
        cluster.delete_schedule(created)
    except ClusterError as error:
        raise ClusterError(
            f"{why}; and the new schedule {created.id} is left, switched off: {error}. Run the command again, which "
            "deletes it"
        ) from error


def _digest_version(package: Package, cron: str) -> str:
    """Return a digest of all that a schedule's runs are made of."""
    parts = [cron, package.service_account, package.arguments, sha256(package.file.read_bytes()).hexdigest()]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _find_current(newest_first: Sequence[Schedule]) -> Schedule | None:
    """Return the schedule that counts: the one that is switched on, else the newest."""
    return next((each for each in newest_first if each.enabled), newest_first[0] if newest_first else None)


def _newest_first(schedules: Iterable[Schedule]) -> list[Schedule]:
    return sorted(schedules, key=_measure_age, reverse=True)


def _measure_age(schedule: Schedule) -> datetime:
    return schedule.created or _LONG_AGO


def _is_known(cron: str) -> bool:
    """Whether an expression is one that `oatflow schedule set` takes; KFP and its UI take others, too."""
    try:
        check_cron(cron)
    except RefusedInput:
        return False
    return True
