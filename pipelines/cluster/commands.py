"""The commands for a cluster: submit, schedule, and the cluster's side of status."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from oatflow.components.errors import OatflowError, RefusedInput
from oatflow.components.images import REGISTRY

from ..flags import CLUSTER_FLAGS, add_flags, command, given_settings, settings_flags
from ..laptop.place import check_name

if TYPE_CHECKING:
    from .kubeflow_client import Cluster, Run
    from .schedules import Removal
    from .submission import Submission

DAY = 86_400.0


class WaitInterrupted(OatflowError):
    """The user stopped waiting for a run. Giving the same command again would start a second one."""

    exit_code = 130


def submit_parser(commands: Any) -> None:
    """Add `oatflow submit`."""
    parser = command(
        commands, "submit", "run the next rounds of an experiment on a cluster", _submit_run, local=False,
        usage="oatflow submit [--experiment NAME] --ledger s3://... [--rounds K] [--preset NAME] [--SETTING VALUE ...]",
    )  # fmt: skip
    parser.add_argument("--experiment", default="demo", help="experiment to begin or to carry on (default: demo)")
    parser.add_argument("--run_name", metavar="NAME", help="what to call the run (default: experiment and time)")
    parser.add_argument("--wait", action="store_true", help="wait until the run has ended, and print a line for "
                        "each step; exit code 1 if the run failed")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=DAY, metavar="SECONDS",
                        help="with --wait: stop waiting after so long (default: a day)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the run as JSON")
    _run_flags(parser)


def schedule_parser(commands: Any) -> None:
    """Add `oatflow schedule` with its verbs."""
    parser = commands.add_parser("schedule", help="run the next rounds of an experiment again and again on a cluster")
    parser.set_defaults(do=lambda _: parser.print_help() or RefusedInput.exit_code)
    verbs = parser.add_subparsers(dest="verb", metavar="set|list|delete")
    set_ = command(
        verbs, "set", "create the schedule of an experiment, or replace it; a run under way goes on", _schedule_set,
        local=False,
        usage='oatflow schedule set NAME --cron "0 0 2 * * *" --ledger s3://... [--rounds K] [--SETTING VALUE ...]',
    )  # fmt: skip
    set_.add_argument("experiment", help="name of the experiment")
    set_.add_argument("--cron", required=True, help='when, in six fields, seconds first: "0 0 2 * * *" is 02:00 (UTC)')
    set_.add_argument("--disabled", action="store_true", help="create it switched off")
    _run_flags(set_)
    _removal_flags(set_, "the old schedule", "the next schedule command deletes it")
    list_ = command(verbs, "list", "list the schedules of a cluster", _schedule_list, local=False)
    list_.add_argument("--json", action="store_true", help="print them as JSON")
    delete = command(
        verbs, "delete", "switch off the schedule of an experiment, and delete it once its run has ended",
        _schedule_delete, local=False,
    )  # fmt: skip
    delete.add_argument("experiment", help="name of the experiment")
    _removal_flags(delete, "the schedule", "the same command given again deletes it")
    for verb in (list_, delete):
        add_flags(verb, CLUSTER_FLAGS)


def _removal_flags(parser: argparse.ArgumentParser, which: str, later: str) -> None:
    """Add what to do with a schedule that has a run under way: deleting it ends that run."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--wait", action="store_true", help=f"wait until the runs of {which} have ended, then delete it "
                     f"(default: switch it off; {later})")  # fmt: skip
    how.add_argument("--now", action="store_true", help=f"delete {which} at once, which ends its current run")
    parser.add_argument(
        "--timeout",
        type=float,
        default=DAY,
        metavar="SECONDS",
        help="with --wait: stop waiting after so long (default: a day)",
    )


def _run_flags(parser: argparse.ArgumentParser) -> None:
    """Add what a run on a cluster can be given."""
    parser.add_argument(
        "--ledger", help="store that holds the experiments, and that the cluster's pods reach: "
        "s3://bucket/prefix?endpoint=URL (default: OATFLOW_LEDGER)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=1, help="rounds that one run does, 1 to 10 (default: 1)")
    parser.add_argument("--service_account", metavar="NAME", help="account that the steps run as (default: KFP's own)")
    parser.add_argument("--registry", default=REGISTRY, help=f"where the images lie (default: {REGISTRY})")
    add_flags(parser, CLUSTER_FLAGS)
    settings_flags(parser, preset="none")


def _make_submission(given: argparse.Namespace) -> Submission:
    """Check all that a run on a cluster is given, before anything is sent."""
    from ..alignment.build import Build
    from .submission import Submission, cluster_ledger, refuse_what_is_only_here

    name = check_name(given.experiment)
    ledger = cluster_ledger(given.ledger, name)
    settings = given_settings(given, Build().defaults())
    refuse_what_is_only_here(settings)
    return Submission(name, ledger, settings, given.rounds, given.registry, given.service_account)


def _submit_run(given: argparse.Namespace) -> int:
    from .kubeflow_client import Cluster
    from .submission import package_pipeline, submit

    with package_pipeline(_make_submission(given)) as package:
        cluster = Cluster.connect(given.host, given.namespace)
        run = submit(cluster, given.experiment, package, given.run_name)
    link = cluster.run_link(run.id)
    if not given.json:
        print(f"run  {run.id}\nsee  {link}", flush=True)
    why: list[str] = []
    if given.wait:
        try:
            run, why = _wait_for_run(cluster, run.id, given)
        except KeyboardInterrupt as error:
            raise WaitInterrupted(f"stopped waiting; run {run.id} goes on: {link}") from error
    if given.json:
        print(json.dumps({"id": run.id, "link": link, "state": run.state, "failures": why}, indent=2))
    return 1 if why else 0


def _wait_for_run(cluster: Cluster, run_id: str, given: argparse.Namespace) -> tuple[Run, list[str]]:
    """Wait for a run and print what happens in it; returns it and why it failed. With --json, print to stderr."""
    from oatflow.components.reporting.words import duration

    from ..laptop.display import StepBar
    from .run_watch import RunWatch
    from .status import describe_failures
    from .submission import wait

    with StepBar.for_stream(sys.stderr if given.json else sys.stdout) as bar:
        watch = RunWatch(cluster, bar, given.rounds, lambda: datetime.now(UTC))
        run = wait(cluster, run_id, given.timeout, watch.take)
        why = [] if run.state == "SUCCEEDED" else describe_failures(cluster, run)
        took = f" after {duration((run.ended - run.began).total_seconds())}" if run.began and run.ended else ""
        ending = [f"the run ended as {run.state}{took}", watch.win_rate if not why else ""]
        bar.print_line(", ".join(filter(None, ending)))
        for line in why:
            bar.print_line(line)
        if not why and watch.was_skipped:
            bar.print_line(
                f"`oatflow status {given.experiment}` with the same --host and --ledger says what it waits for"
            )
    return run, why


def _schedule_set(given: argparse.Namespace) -> int:
    from .cron import check_cron, in_words, next_times
    from .kubeflow_client import Cluster
    from .schedules import remove_schedules, set_schedule
    from .submission import package_pipeline

    cron, enabled = check_cron(given.cron), not given.disabled
    with package_pipeline(_make_submission(given)) as package:
        cluster = Cluster.connect(given.host, given.namespace)
        result = set_schedule(cluster, given.experiment, package, cron, enabled)
    schedule = result.schedule
    words = {
        "unchanged": "it has these settings already; nothing was changed",
        "switched": f"it has these settings already, and was switched {'on' if enabled else 'off'}",
    }
    print(f"schedule {schedule.name} ({schedule.id}): {words.get(result.done, in_words(cron))}")
    print(f"next  {_list_times(next_times(cron, datetime.now(UTC)))}" if enabled else "it is switched off")
    removal = remove_schedules(cluster, result.replaced, given.now)
    _delete_replaced(cluster, given.experiment)
    return _finish_removal(cluster, given, removal, "deleted the old schedule")


def _schedule_list(given: argparse.Namespace) -> int:
    from .kubeflow_client import Cluster
    from .schedules import describe_schedules, report_schedules

    cluster = Cluster.connect(given.host, given.namespace)
    _delete_replaced(cluster)
    report = report_schedules(cluster, datetime.now(UTC))
    print(json.dumps(report, indent=2) if given.json else "\n".join(describe_schedules(report)))
    return 0


def _schedule_delete(given: argparse.Namespace) -> int:
    from .kubeflow_client import Cluster
    from .schedules import find_schedules, remove_schedules

    cluster = Cluster.connect(given.host, given.namespace)
    removal = remove_schedules(cluster, find_schedules(cluster, given.experiment), given.now)
    _delete_replaced(cluster, given.experiment)
    return _finish_removal(cluster, given, removal, "deleted")


def _delete_replaced(cluster: Cluster, but: str = "") -> None:
    """Delete replaced schedules whose runs have ended, and say so on stderr. `but`: an experiment that is left out."""
    from .schedules import experiment_of, find_replaced_schedules, remove_schedules

    replaced = [schedule for schedule in find_replaced_schedules(cluster) if experiment_of(schedule) != but]
    removal = remove_schedules(cluster, replaced)
    for schedule in removal.deleted:
        print(f"oatflow: deleted the old schedule {schedule.name} ({schedule.id})", file=sys.stderr)
    for problem in removal.problems:
        print(f"oatflow: an old schedule could not be deleted: {problem}", file=sys.stderr)


def _finish_removal(cluster: Cluster, given: argparse.Namespace, removal: Removal, deed: str) -> int:
    """Print what became of the schedules to be removed, and wait for their runs if that was asked for."""
    from .schedules import remove_schedules
    from .submission import wait

    _print_removal(removal, deed)
    kept = removal.kept
    if given.wait and kept:
        until = time.monotonic() + given.timeout
        for run in (run for each in kept for run in each.runs):
            print(f"waiting for run {run.id} ({run.name}) to end", flush=True)
            wait(cluster, run.id, max(until - time.monotonic(), 0.0))
        removal = remove_schedules(cluster, [each.schedule for each in kept])
        _print_removal(removal, deed)
        kept = removal.kept
    for each in kept:
        runs = ", ".join(f"{run.id} ({run.name})" for run in each.runs)
        again = "any `oatflow schedule` command" if deed != "deleted" else "this command, given again,"
        print(
            f"{each.schedule.name} ({each.schedule.id}) is switched off, and starts no more runs. Its run {runs} goes "
            f"on; when it has ended, {again} deletes the schedule. --wait waits for that; --now deletes it at once, "
            "which ends the run"
        )
    if kept and deed != "deleted":
        print(
            "While that run works on a round, a run that the new schedule starts does nothing and fails with exit code "
            "3; a later one carries on"
        )
    return 1 if removal.problems else 0


def _print_removal(removal: Removal, deed: str) -> None:
    for schedule in removal.deleted:
        print(f"{deed} {schedule.name} ({schedule.id})")
    for run in removal.ended:
        print(f"that ended its run {run.id} ({run.name})")
    for problem in removal.problems:
        print(f"oatflow: a schedule could not be deleted: {problem}", file=sys.stderr)


def _list_times(moments: list[datetime]) -> str:
    return ", ".join(f"{moment:%Y-%m-%d %H:%M:%S}" for moment in moments)


def cluster_status(given: argparse.Namespace) -> int:
    """Print what the cluster and the ledger have of an experiment."""
    from ..data.ledger_status import describe_status
    from .kubeflow_client import Cluster
    from .status import full_report
    from .status_lines import describe_cluster
    from .submission import LEDGER

    if given.verify:
        raise RefusedInput("verify: checks a ledger, and no cluster; leave out --host, --namespace and --run")

    cluster = Cluster.connect(given.host, given.namespace)
    root = given.ledger or os.environ.get(LEDGER)
    report = full_report(cluster, check_name(given.experiment), root, datetime.now(UTC), given.run)
    if given.json:
        print(json.dumps(report, indent=2))
        return 0
    print(describe_status(report["ledger"]) if report["ledger"] else f"ledger   {report['ledger_unread']}")
    print("\n".join(describe_cluster(report)))
    return 0
