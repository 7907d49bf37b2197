"""Settings are typed once, at the edge: frozen, nothing extra allowed, all problems in one error.

Each room declares its own section (``<room>/settings.py``) on top of `Section`. A field marked `operational`
may change between the runs of one experiment (resources, timeouts), and one marked `growing` may be raised; every
other field gives the experiment its meaning and is frozen with its first round.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import SettingsError


class Section(BaseModel):
    """One room's settings. Every field has a default, a range and a description: the form, the help, the docs."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Validate; a `SettingsError` lists every problem by its full name."""
        try:
            return cls.model_validate(dict(given))
        except ValidationError as error:
            raise SettingsError("; ".join(_describe_problems(cls, error))) from None


def operational_field(default: Any, **constraints: Any) -> Any:
    """Return a field that may change after the experiment has begun."""
    return Field(default, json_schema_extra={"operational": True}, **constraints)


def growing_field(default: Any, **constraints: Any) -> Any:
    """Return a field that may be raised after the experiment has begun, and never lowered."""
    return Field(default, json_schema_extra={"growing": True}, **constraints)


def is_growing(section: type[BaseModel], field: str) -> bool:
    """Whether a field may be raised after the experiment has begun."""
    extra = section.model_fields[field].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("growing"))


def is_operational(section: type[BaseModel], field: str) -> bool:
    """Whether a field may change after the experiment has begun."""
    extra = section.model_fields[field].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("operational"))


def is_given(section: BaseModel, field: str) -> bool:
    """Whether a field has another value than its default."""
    return bool(getattr(section, field) != type(section).model_fields[field].default)


def did_you_mean(name: str, known: list[str]) -> str:
    """Return the ending of an error about an unknown name: the closest known one, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def _describe_problems(section: type[BaseModel], error: ValidationError) -> list[str]:
    return [_describe_problem(section, problem) for problem in error.errors()]


def _describe_problem(section: type[BaseModel], problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"{name}={problem['input']!r}: unknown setting; {_suggest_name(section, path)}"
    message: str = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error" and _is_section(section, path):
        # A section's own letter: it names its settings itself.
        return message
    return f"{name}={problem['input']!r}: {message[0].lower()}{message[1:]}"


def _suggest_name(section: type[BaseModel], path: list[str]) -> str:
    """Look the unknown name up in its own section first, then in all the others."""
    here: type[BaseModel] = section
    for part in path[:-1]:
        here = _section_at(here, part) or here
    homes = {
        field: name
        for name in section.model_fields
        if (inner := _section_at(section, name)) is not None
        for field in inner.model_fields
    }
    if path[-1] in homes:
        return f"it belongs under {homes[path[-1]]!r}"
    own = list(here.model_fields)
    close = difflib.get_close_matches(path[-1], own, n=1) or difflib.get_close_matches(path[-1], list(homes), n=1)
    if close and close[0] in homes and close[0] not in own:
        return f"did you mean {homes[close[0]]}.{close[0]!r}?"
    return did_you_mean(path[-1], own)


def _is_section(section: type[BaseModel], path: list[str]) -> bool:
    """Whether the path leads to a section, the outermost one included, and not to one of its fields."""
    here: type[BaseModel] | None = section
    for part in path:
        here = _section_at(here, part) if here is not None else None
    return here is not None


def _section_at(section: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = section.model_fields.get(name)
    kind = field.annotation if field is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
