"""The commands for a cluster: submit, schedule, and the cluster's side of status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from oatflow.components.errors import RefusedInput
from oatflow.components.images import REGISTRY

from .flags import CLUSTER_FLAGS, add_flags, command, given_settings, settings_flags
from .place import check_name

if TYPE_CHECKING:
    from .submission import Submission

DAY = 86_400.0


def submit_parser(commands: Any) -> None:
    """Add `oatflow submit`."""
    parser = command(
        commands, "submit", "run the next rounds of an experiment on a cluster", _submit, local=False,
        usage="oatflow submit [--experiment NAME] --ledger s3://... [--rounds K] [--preset NAME] [--SETTING VALUE ...]",
    )  # fmt: skip
    parser.add_argument("--experiment", default="demo", help="experiment to begin or to carry on (default: demo)")
    parser.add_argument("--run_name", metavar="NAME", help="what to call the run (default: experiment and time)")
    parser.add_argument("--wait", action="store_true", help="wait until the run has ended; exit code 1 if it failed")
    parser.add_argument("--timeout", type=float, default=DAY, metavar="SECONDS", help="wait no longer (default: a day)")
    parser.add_argument("--json", action="store_true", help="print the run as JSON")
    _run_flags(parser)


def schedule_parser(commands: Any) -> None:
    """Add `oatflow schedule` with its verbs."""
    parser = commands.add_parser("schedule", help="run the next rounds of an experiment again and again on a cluster")
    parser.set_defaults(do=lambda _: parser.print_help() or RefusedInput.exit_code)
    verbs = parser.add_subparsers(dest="verb", metavar="set|list|delete")
    set_ = command(
        verbs, "set", "create the schedule of an experiment, or replace it", _schedule_set, local=False,
        usage='oatflow schedule set NAME --cron "0 0 2 * * *" --ledger s3://... [--rounds K] [--SETTING VALUE ...]',
    )  # fmt: skip
    set_.add_argument("experiment", help="name of the experiment")
    set_.add_argument("--cron", required=True, help='when, in six fields, seconds first: "0 0 2 * * *" is 02:00 (UTC)')
    set_.add_argument("--disabled", action="store_true", help="create it switched off")
    _run_flags(set_)
    list_ = command(verbs, "list", "list the schedules of a cluster", _schedule_list, local=False)
    list_.add_argument("--json", action="store_true", help="print them as JSON")
    delete = command(
        verbs, "delete", "delete the schedule of an experiment; its runs stay", _schedule_delete, local=False
    )
    delete.add_argument("experiment", help="name of the experiment")
    for verb in (list_, delete):
        add_flags(verb, CLUSTER_FLAGS)


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


def _submission(given: argparse.Namespace) -> Submission:
    """Check all that a run on a cluster is given, before anything is sent."""
    from .alignment.build import Build
    from .submission import Submission, cluster_ledger, refuse_what_is_only_here

    name = check_name(given.experiment)
    ledger = cluster_ledger(given.ledger, name)
    settings = given_settings(given, Build().defaults())
    refuse_what_is_only_here(settings)
    return Submission(name, ledger, settings, given.rounds, given.registry, given.service_account)


def _submit(given: argparse.Namespace) -> int:
    from .cluster_status import failures
    from .kubeflow_client import Cluster
    from .submission import packaged, submit, wait

    with packaged(_submission(given)) as package:
        cluster = Cluster.connect(given.host, given.namespace)
        run = submit(cluster, given.experiment, package, given.run_name)
    link = cluster.run_link(run.id)
    if not given.json:
        print(f"run  {run.id}\nsee  {link}", flush=True)
    if given.wait:
        run = wait(cluster, run.id, given.timeout)
    failed = given.wait and run.state != "SUCCEEDED"
    why = failures(run) if failed else []
    if given.json:
        print(json.dumps({"id": run.id, "link": link, "state": run.state, "failures": why}, indent=2))
    elif given.wait:
        print("\n".join([f"it is {run.state}", *why]))
    return 1 if failed else 0


def _schedule_set(given: argparse.Namespace) -> int:
    from .cron import check_cron, in_words, next_times
    from .kubeflow_client import Cluster
    from .submission import packaged, set_schedule

    cron = check_cron(given.cron)
    with packaged(_submission(given)) as package:
        cluster = Cluster.connect(given.host, given.namespace)
        replaced = set_schedule(cluster, given.experiment, package, cron, not given.disabled)
    print(f"schedule {replaced.schedule.name} ({replaced.schedule.id}): {in_words(cron)}")
    print("it is switched off" if given.disabled else f"next  {_times(next_times(cron, datetime.now(UTC)))}")
    if replaced.deleted:
        print(f"it replaces {', '.join(replaced.deleted)}")
    for problem in replaced.left:
        print(f"oatflow: an older schedule is still there, and runs as well: {problem}", file=sys.stderr)
    return 1 if replaced.left else 0


def _schedule_list(given: argparse.Namespace) -> int:
    from .cluster_status import describe_schedules, schedule_report
    from .kubeflow_client import Cluster

    report = schedule_report(Cluster.connect(given.host, given.namespace), datetime.now(UTC))
    print(json.dumps(report, indent=2) if given.json else "\n".join(describe_schedules(report)))
    return 0


def _schedule_delete(given: argparse.Namespace) -> int:
    from .kubeflow_client import Cluster
    from .submission import delete_schedule

    for schedule in delete_schedule(Cluster.connect(given.host, given.namespace), given.experiment):
        print(f"deleted {schedule.name} ({schedule.id})")
    return 0


def _times(moments: list[datetime]) -> str:
    return ", ".join(f"{moment:%Y-%m-%d %H:%M:%S}" for moment in moments)


def cluster_status(given: argparse.Namespace) -> int:
    """Say what the cluster and the ledger say of an experiment."""
    from .cluster_status import describe_runs, full_report
    from .kubeflow_client import Cluster
    from .status import describe
    from .submission import LEDGER

    if given.verify:
        raise RefusedInput("verify: reads a ledger and no cluster; leave --host and --namespace out")

    cluster = Cluster.connect(given.host, given.namespace)
    report = full_report(cluster, check_name(given.experiment), given.ledger or os.environ.get(LEDGER))
    if given.json:
        print(json.dumps(report, indent=2))
        return 0
    ledger = report["ledger"]
    print(describe(ledger) if ledger else f"ledger   {report['ledger_unread']}")
    print("\n".join(describe_runs(report["cluster"], ledger and ledger["open_round"])))
    return 0
