"""The command `oatflow doctor`: checks this machine or, with --host, a cluster, and prints one table."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from oatflow.components.errors import RefusedInput
from oatflow.components.images import REGISTRY
from oatflow.components.jobs.settings import JobSettings
from oatflow.components.policy.settings import PolicySettings

from .flags import CLUSTER_FLAGS, Flag, add_flags, command, optional_host
from .laptop.place import home_folder

MOST_SECONDS = 86_400.0
MARKS = {True: "ok  ", False: "FAIL", None: "?   "}
POLICY = ("pretrain", "trust_remote_code", "allow_pickled_weights", "lora_rank", "lora_targets")
TRAINER_ACCOUNT = "oatflow-trainer"
MACHINE_FLAGS: list[Flag] = [
    ("--pretrain", {"default": "oatflow:SmolLM2-135M-Instruct", "help": "model to check"}),
    ("--trust_remote_code", {"action": "store_true", "help": "the model may bring code along"}),
    ("--allow_pickled_weights", {"action": "store_true", "help": "the model's weights may be pickles"}),
    ("--lora_rank", {"type": int, "default": 0, "help": "rank of the adapter to be trained, if there is one"}),
    ("--lora_targets", {"default": "all-linear", "help": "layers that the adapter shall be put on"}),
    ("--store_only", {"action": "store_true", "help": "check the store alone, as from a cluster's pod"}),
]


def doctor_parser(commands: Any) -> None:
    """Add `oatflow doctor`."""
    parser = command(
        commands, "doctor", "check this installation or, with --host, a cluster, and say what to do", _doctor
    )
    add_flags(parser, MACHINE_FLAGS)
    on_a_cluster = parser.add_argument_group("to check a cluster, with --host")
    host = optional_host(" and --namespace", "this machine is checked")
    for flag, description in [host, CLUSTER_FLAGS[1], *_cluster_flags()]:
        on_a_cluster.add_argument(flag, **description)


def _cluster_flags() -> list[Flag]:
    """Return the flags that say how runs are going to be submitted, with the defaults that runs have."""
    default = {name: field.default for name, field in JobSettings.model_fields.items()}
    return [
        ("--service_account", {"metavar": "NAME", "help": "account that the steps run as (default: KFP's own)"}),
        ("--train_service_account", {"metavar": "NAME", "default": TRAINER_ACCOUNT,
                                     "help": f"account of the training pods (default: {TRAINER_ACCOUNT})"}),
        ("--s3_secret", {"metavar": "NAME", "default": default["s3_secret"],
                         "help": f"secret with the store's keys (default: {default['s3_secret']})"}),
        ("--keys_secret", {"metavar": "NAME", "default": default["keys_secret"],
                           "help": f"secret with all other keys (default: {default['keys_secret']})"}),
        ("--train_backend", {"choices": ("pytorchjob", "trainjob"),
                             "help": "kind of training job that must be there (default: any of them)"}),
        ("--train_queue", {"metavar": "NAME", "help": "local queue of Kueue that trainings wait in (default: none)"}),
        ("--gpu_resource", {"default": default["gpu_resource"],
                            "help": f"what the cluster calls a GPU (default: {default['gpu_resource']})"}),
        ("--cpu", {"action": "store_true", "help": "a cluster without GPUs: check the images without CUDA"}),
        ("--registry", {"default": REGISTRY, "help": f"where the images lie (default: {REGISTRY})"}),
        ("--image_pull_secret", {"action": "append", "default": [], "metavar": "NAME",
                                 "help": "secret that images are pulled with; may be given again"}),
        ("--no_pods", {"action": "store_true",
                       "help": "start nothing: the images are not pulled, and the store is not tried"}),
        ("--timeout", {"type": float, "default": 600.0, "metavar": "SECONDS",
                       "help": "how long each pod may take, its images included (default: 600)"}),
    ]  # fmt: skip


def _doctor(given: argparse.Namespace) -> int:
    if given.host or given.namespace:
        _refuse_flags(given, MACHINE_FLAGS, "only for a check of this machine; leave out --host and --namespace")
        if not 0 < given.timeout < MOST_SECONDS:
            raise RefusedInput(f"timeout={given.timeout:g}: expected seconds, more than 0 and less than a day")
        from .cluster.checks import Installation
        from .cluster.examination import examine_cluster

        names = Installation.__dataclass_fields__
        return print_findings(examine_cluster(Installation(**{name: getattr(given, name) for name in names})))
    _refuse_flags(given, _cluster_flags(), "only for a check of a cluster; give --host as well")
    from .laptop.doctor import examine_machine

    policy = PolicySettings.parse({name: getattr(given, name) for name in POLICY})
    return print_findings(examine_machine(home_folder(given.home), given.ledger, policy, given.store_only))


def _refuse_flags(given: argparse.Namespace, flags: list[Flag], why: str) -> None:
    """Refuse flags that would be ignored."""
    for flag, description in flags:
        name, default = flag.removeprefix("--"), description.get("default")
        # What only switches something on has no default of its own.
        if getattr(given, name) != (False if description.get("action") == "store_true" else default):
            raise RefusedInput(f"{name}: {why}")


def print_findings(findings: Iterable[Any]) -> int:
    """Print one line for each check as it ends, with what to do beneath it; returns the exit code."""
    failed = unknown = 0
    for finding in findings:
        failed += finding.ok is False
        unknown += finding.ok is None
        print(f"{MARKS[finding.ok]}  {finding.check}: {finding.found}", flush=True)
        if not finding.ok:
            print(f"      -> {finding.advice}")
    said = [_run_checks(failed, "failed")] if failed else []
    said += [_run_checks(unknown, "gave no answer")] if unknown else []
    print(", ".join(said) or "all is well")
    return 1 if failed or unknown else 0


def _run_checks(count: int, what: str) -> str:
    return f"{count} check{'s' if count > 1 else ''} {what}"
