"""Flags that several commands share: what every command has, and every setting of an experiment as a flag."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oatflow.components.rounds.experiment import ExperimentSettings

from .alignment.config import all_settings, gather, presets
from .settings_help import ShowHelp

DEFAULT_PRESET = "reviews"
Flag = tuple[str, dict[str, Any]]
CLUSTER_FLAGS: list[Flag] = [
    ("--host", {"help": "address of Kubeflow Pipelines (default: KF_PIPELINES_ENDPOINT, else the cluster around us)"}),
    ("--namespace", {"help": "namespace of the runs, where Kubeflow has one for each user"}),
]


def optional_host(others: str, instead: str) -> Flag:
    """Return --host for a command that asks a cluster only if it is given one of these flags."""
    return ("--host", {"help": "address of Kubeflow Pipelines (default: KF_PIPELINES_ENDPOINT, else the cluster around "
                       f"us; but without --host{others}, {instead})"})  # fmt: skip


def command(commands: Any, name: str, help_: str, do: Any, local: bool = True, **more: Any) -> argparse.ArgumentParser:
    """Add a command; `local`: with the flags of an experiment on this machine."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_, description=help_[0].upper() + help_[1:] + ".", allow_abbrev=False, **more
    )
    parser.set_defaults(do=do)
    if local:
        parser.add_argument(
            "--home", type=Path, metavar="DIR", help="folder for local data (default: OATFLOW_HOME, else ./.oatflow)"
        )
        parser.add_argument("--ledger", metavar="URL", help="store that holds the experiments, "
                            "s3://bucket/prefix?endpoint=URL (default: a server of ours on this machine)")  # fmt: skip
    return parser


def add_flags(parser: argparse.ArgumentParser, flags: Sequence[Flag]) -> None:
    """Add some flags."""
    for flag, description in flags:
        parser.add_argument(flag, **description)


def settings_flags(parser: argparse.ArgumentParser, preset: str = DEFAULT_PRESET) -> None:
    """Add the settings, the preset that they start from, and the help that shows them by section."""
    known = ", ".join(presets())
    parser.add_argument(
        "--preset", metavar="NAME", default=preset, help=f"settings to start from: {known}, or none (default: {preset})"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings, one mapping a section")
    parser.add_argument("-h", "--help", action=ShowHelp, nargs="?", metavar="SECTION", default=argparse.SUPPRESS,
                        help="show this help, or every setting of a section")  # fmt: skip
    parser.add_argument("--help_all", action=ShowHelp, nargs=0, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    for setting in all_settings():
        parser.add_argument(f"--{setting.name}", dest=f"setting:{setting.name}", help=argparse.SUPPRESS)


def given_settings(given: argparse.Namespace, place: Mapping[str, Any] | None = None) -> ExperimentSettings:
    """Return the settings that a command was given, all of them checked; `place` has defaults of its own."""
    flags = {
        key.removeprefix("setting:"): value
        for key, value in vars(given).items()
        if key.startswith("setting:") and value is not None
    }
    return gather(None if given.preset == "none" else given.preset, given.config, flags, place)
