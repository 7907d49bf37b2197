"""From what users write (a preset, a YAML file, flags) to the experiment's settings."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import yaml
from oatflow.components.errors import RefusedInput, SettingsError
from oatflow.components.exploration.registry import STRATEGIES
from oatflow.components.former_settings import update_settings
from oatflow.components.oracles.known_reward import allow_module
from oatflow.components.oracles.registry import ORACLES
from oatflow.components.policy.registry import LOSSES
from oatflow.components.rounds.experiment import ExperimentSettings, refuse_small_budget
from oatflow.components.settings import Section, did_you_mean, is_growing, is_operational

from .strict_yaml import parse_yaml

Nested = dict[str, dict[str, Any]]
_TYPES = {str: "TEXT", int: "INT", float: "NUMBER", bool: "BOOL", tuple: "LIST", list: "LIST", dict: "MAPPING"}
_REGISTRIES: dict[str, Iterable[str]] = {
    "exp_method": STRATEGIES,
    "preference_oracle": ORACLES,
    "eval_oracle": ORACLES,
    "dap_algo": LOSSES,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as a flag: its section and name, its type in a word, and what the help says of it."""

    room: str
    name: str
    default: Any
    help: str
    operational: bool
    growing: bool
    kind: str
    choices: tuple[str, ...]


def all_settings() -> Iterator[Setting]:
    """Walk all settings, room by room. A name belongs to one room only, so a flag needs no prefix."""
    for room, field in ExperimentSettings.model_fields.items():
        section = field.annotation
        assert isinstance(section, type) and issubclass(section, Section)
        for name, inner in section.model_fields.items():
            text = " ".join((inner.description or "").split())
            choices = choices_of(name, inner.annotation)
            kind = "CHOICE" if choices else _name_type(inner.annotation)
            yield Setting(
                room, name, inner.default, text, is_operational(section, name), is_growing(section, name), kind, choices
            )


def choices_of(name: str, annotation: Any) -> tuple[str, ...]:
    """Return the values that a setting can have, from its registry or its type; empty where any will do."""
    if name in _REGISTRIES:
        return tuple(_REGISTRIES[name])
    return tuple(map(str, get_args(annotation))) if get_origin(annotation) is Literal else ()


def _name_type(annotation: Any) -> str:
    """Return a type in a word, as the help shows it; for `int | None` that of `int`."""
    types = [kind for kind in get_args(annotation) if kind is not NoneType]
    kind = types[0] if isinstance(annotation, UnionType) else get_origin(annotation) or annotation
    return _TYPES[kind]


def gather(
    preset: str | None, file: Path | None, flags: Mapping[str, str], place: Mapping[str, Any] | None = None
) -> ExperimentSettings:
    """Merge a preset, a YAML file over it, and flags over both; then validate everything at once.

    `place`: what the place of the run has for defaults, by the settings' names; all else goes over it.
    """
    merged = _by_room(place or {})
    if preset is not None:
        _merge_sections(merged, read_preset(preset))
    if file is not None:
        _merge_sections(merged, read_yaml(file))
    _merge_sections(merged, _by_room(_read_flags(flags)))
    # A file may come from somebody else; what is typed on the command line does not.
    allow_module(flags.get("reward", ""))
    _read_texts(merged)
    settings = ExperimentSettings.parse(merged)
    refuse_small_budget(settings)
    return settings


def _read_texts(merged: Nested) -> None:
    """Put the text of a file in the place of its path: what the judge is told is frozen with the experiment."""
    judge = merged.get("judge", {})
    for name in ("judge_template", "judge_rubric"):
        value = judge.get(name)
        if not isinstance(value, str) or not value or "\n" in value:
            continue
        try:
            judge[name] = Path(value).read_text(encoding="utf-8").rstrip("\n") + "\n"
        except (OSError, UnicodeDecodeError) as error:
            raise RefusedInput(f"judge.{name}={value!r}: cannot be read ({error}); give a text file") from error


def presets() -> list[str]:
    """Name the presets that ship with the package."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in _preset_folder().iterdir() if entry.name.endswith(".yaml")
    )


def read_preset(name: str) -> Nested:
    """Read a preset by name."""
    if name not in presets():
        raise SettingsError(f"preset={name!r}: unknown; {did_you_mean(name, presets())}")
    return _checked_yaml(_preset_folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8"), f"preset {name}")


def read_yaml(file: Path) -> Nested:
    """Read a settings file: one mapping a room."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise RefusedInput(
            f"config={str(file)!r}: cannot be read ({error.strerror}); give the path of a YAML file"
        ) from error
    return _checked_yaml(text, str(file))


def _checked_yaml(text: str, name: str) -> Nested:
    try:
        content = parse_yaml(text) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"{name}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{name}: expected one mapping a room, such as 'sampling: {{num_samples: 4}}'")
    for room, section in content.items():
        if room in ExperimentSettings.model_fields and not isinstance(section, dict):
            raise SettingsError(f"{name}: {room}={section!r}: expected a mapping of settings")
    return update_settings(content)


def _by_room(values: Mapping[str, Any]) -> Nested:
    rooms = {setting.name: setting.room for setting in all_settings()}
    sections: Nested = {}
    for name, value in values.items():
        sections.setdefault(rooms[name], {})[name] = value
    return sections


def _read_flags(flags: Mapping[str, str]) -> dict[str, Any]:
    """Read the texts of flags."""
    defaults = {setting.name: setting.default for setting in all_settings()}
    return {name: text if _is_text(text, defaults[name]) else _read_flag(text) for name, text in flags.items()}


def _is_text(text: str, default: Any) -> bool:
    """Whether a flag's text stands for itself: a setting that is text by default may look like a number."""
    return isinstance(default, str) and text.lower() != "none"


def _read_flag(text: str) -> Any:
    """Read a flag's text as YAML would: 4 is a number, {a: b} a mapping, none and null are nothing."""
    if text.lower() == "none":
        return None
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, int | float | bool | dict | list | None) else text


def _merge_sections(into: Nested, over: Mapping[str, Any]) -> None:
    for room, section in over.items():
        if isinstance(section, Mapping):
            into.setdefault(room, {}).update(section)
        else:
            into[room] = section


def _preset_folder() -> Any:
    return importlib.resources.files("oatflow.pipelines.alignment").joinpath("presets")
