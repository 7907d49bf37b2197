"""Flags that several commands share: what every command has, and every setting of an experiment as a flag."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from oatflow.components.rounds.experiment import ExperimentSettings

from .alignment.config import Setting, all_settings, gather, presets, read_preset

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
        parser.add_argument("--home", type=Path, help="folder for local data (default: OATFLOW_HOME, else ./.oatflow)")
        parser.add_argument("--ledger", help="store that holds the experiments, s3://bucket/prefix?endpoint=URL "
                            "(default: an S3 server of our own on this machine)")  # fmt: skip
    return parser


def add_flags(parser: argparse.ArgumentParser, flags: Sequence[Flag]) -> None:
    """Add some flags."""
    for flag, description in flags:
        parser.add_argument(flag, **description)


def settings_flags(parser: argparse.ArgumentParser, preset: str = DEFAULT_PRESET) -> None:
    """Add the settings, by room, and the preset that they start from."""
    parser.epilog = (
        "Settings marked * may change while an experiment goes on; all others are frozen with its first round."
    )
    known = ", ".join(presets())
    parser.add_argument(
        "--preset", default=preset, help=f"settings to start from: {known}, or none (default: {preset})"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings, one mapping a room")
    shipped = read_preset(DEFAULT_PRESET)
    for room, settings in _by_room():
        group = parser.add_argument_group(f"{room} settings")
        for setting in settings:
            group.add_argument(
                f"--{setting.name}", metavar="VALUE", dest=f"setting:{setting.name}", help=_help(setting, shipped)
            )


def _by_room() -> Iterator[tuple[str, list[Setting]]]:
    rooms: dict[str, list[Setting]] = {}
    for setting in all_settings():
        rooms.setdefault(setting.room, []).append(setting)
    yield from rooms.items()


def _help(setting: Setting, shipped: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe a setting with its default, and what the default preset makes of it."""
    mark = "* " if setting.operational else ""
    default = "none" if setting.default in (None, "") else setting.default
    ours = shipped.get(setting.room, {}).get(setting.name)
    preset = "" if ours is None else f"; preset {DEFAULT_PRESET}: {ours}"
    return f"{mark}{setting.help} (default: {default}{preset})".replace("%", "%%")


def given_settings(given: argparse.Namespace, place: Mapping[str, Any] | None = None) -> ExperimentSettings:
    """Return the settings that a command was given, all of them checked; `place` has defaults of its own."""
    flags = {
        key.removeprefix("setting:"): value
        for key, value in vars(given).items()
        if key.startswith("setting:") and value is not None
    }
    return gather(None if given.preset == "none" else given.preset, given.config, flags, place)
