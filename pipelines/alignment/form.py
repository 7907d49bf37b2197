"""The form that people fill in for a run: the pipeline's parameters, made from the settings themselves."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from oatflow.components.rounds.experiment import ExperimentSettings
from oatflow.components.rounds.form import FORM, MORE, fields_of
from oatflow.components.settings import Section

LEDGER = "Where the experiment lies: s3://bucket/prefix?endpoint=http://host:port. A new one begins there, an old one \
goes on."
_MORE = 'Any other setting, by section, such as {"policy": {"l2": 0.1}}; `oatflow align --help` lists them all.'


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the form: name, type, what stands in it at first, and what is said of it."""

    name: str
    type: type
    default: Any
    description: str


def fields(defaults: Mapping[str, Any]) -> list[Field]:
    """Return all fields but the ledger's; `defaults` are those that differ from the settings' own."""
    by_name = {name: inner for section in _list_sections() for name, inner in section.model_fields.items()}
    found = []
    for name in FORM:
        inner = by_name[name]
        default = defaults.get(name, inner.default)
        text = " ".join((inner.description or "").split())
        found.append(
            Field(name, _field_type(inner.annotation), "" if default is None else default, text + _list_choices(inner))
        )
    return [*found, Field(MORE, dict, {}, _MORE)]


def field_types(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the type of each field but the ledger's, by name."""
    return {each.name: each.type for each in fields(defaults)}


def signature(defaults: Mapping[str, Any], first: list[str]) -> inspect.Signature:
    """Return the signature of a pipeline that takes the form after the texts named in `first`."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [inspect.Parameter(name, kind, annotation=str) for name in first]
        + [
            inspect.Parameter(each.name, kind, annotation=each.type, default=each.default)
            if each.name not in _REQUIRED
            else inspect.Parameter(each.name, kind, annotation=each.type)
            for each in sorted(fields(defaults), key=lambda each: each.name not in _REQUIRED)
        ]
    )


def docstring(summary: str, defaults: Mapping[str, Any], first: Mapping[str, str]) -> str:
    """Return the docstring that KFP takes the descriptions in the form from."""
    lines = [f"    {name}: {text}" for name, text in first.items()]
    lines += [f"    {each.name}: {each.description}" for each in fields(defaults)]
    return "\n".join([summary, "", "Args:", *lines])


def form_arguments(ledger: str, settings: ExperimentSettings) -> dict[str, Any]:
    """Return the pipeline's arguments for an experiment, each of the type that KFP's API takes."""
    return {"ledger": ledger, **fields_of(settings.model_dump(mode="json"))}


# What nobody can guess for a user.
_REQUIRED = ("prompt_data", "pretrain")


def _list_sections() -> list[type[Section]]:
    sections = [field.annotation for field in ExperimentSettings.model_fields.values()]
    return [section for section in sections if isinstance(section, type) and issubclass(section, Section)]


def _field_type(annotation: Any) -> Any:
    """Return the plain type that KFP knows for a setting's annotation."""
    origin, args = get_origin(annotation), [arg for arg in get_args(annotation) if arg is not type(None)]
    if origin in (dict, list):
        return origin
    if args:
        return type(args[0]) if not isinstance(args[0], type) else args[0]
    return annotation


def _list_choices(inner: Any) -> str:
    """Name the values that a setting may have, where they are few."""
    values = [arg for arg in get_args(inner.annotation) if not isinstance(arg, type)]
    return f" One of: {', '.join(map(str, values))}." if len(values) > 1 else ""
