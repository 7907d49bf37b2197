"""Custom resources against their schema, unknown fields and all: what the real server drops is refused here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_OWNER = {
    "type": "object",
    "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "name": {"type": "string"},
        "uid": {"type": "string"}, "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"},
    },
    "required": ["apiVersion", "kind", "name", "uid"],
}  # fmt: skip
# A resource's schema only says that metadata is an object; the server knows its fields all the same.
_METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
        "namespace": {"type": "string"}, "labels": _TEXTS, "annotations": _TEXTS, "uid": {"type": "string"},
        "resourceVersion": {"type": "string"}, "creationTimestamp": {"type": "string"},
        "deletionTimestamp": {"type": "string"}, "generation": {"type": "integer"},
        "ownerReferences": {"type": "array", "items": _OWNER},
        "finalizers": {"type": "array", "items": {"type": "string"}},
    },
}  # fmt: skip
_TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": int | float,
}  # fmt: skip


class CrdSchema:
    """The schema of one custom resource, read from its definition."""

    def __init__(self, definition: Path):
        spec = json.loads(definition.read_text())["spec"]
        version = spec["versions"][0]
        self.group, self.version = spec["group"], version["name"]
        self.kind, self.plural = spec["names"]["kind"], spec["names"]["plural"]
        self._schema = version["schema"]["openAPIV3Schema"]

    def unknown(self, found: dict) -> list[str]:
        """Return the paths of all fields that the resource does not have."""
        return [path for path, problem in self._problems(found) if problem is None]

    def invalid(self, found: dict) -> list[str]:
        """Return everything else that is wrong, each with its path."""
        wrong = [f"{path}: {problem}" for path, problem in self._problems(found) if problem is not None]
        expected = f"{self.group}/{self.version}", self.kind
        if (found.get("apiVersion"), found.get("kind")) != expected:
            wrong.append(f"apiVersion, kind: expected {expected}")
        return wrong

    def _problems(self, found: dict) -> Iterator[tuple[str, str | None]]:
        return _check(found, self._schema, "")


def _check(value: object, schema: dict, path: str) -> Iterator[tuple[str, str | None]]:
    """Yield (path, problem); a field that is not known has no problem but itself."""
    wanted = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield path, f"{value!r} is neither an integer nor a string"
            return
    elif wanted is not None and (
        not isinstance(value, _TYPES[wanted]) or isinstance(value, bool) > (wanted == "boolean")
    ):
        yield path, f"{value!r} is not of type {wanted}"
        return
    yield from ((path, problem) for problem in _limits(value, schema))
    if isinstance(value, dict):
        yield from _check_object(value, schema, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _check(item, schema.get("items", {}), f"{path}[{index}]")
        keys = schema.get("x-kubernetes-list-map-keys")
        if keys:
            names = [tuple(item.get(key) for key in keys) for item in value]
            yield from ((path, f"Duplicate value {name}") for name in set(names) if names.count(name) > 1)


def _check_object(value: dict, schema: dict, path: str) -> Iterator[tuple[str, str | None]]:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name}", "Required value"
    for name, item in value.items():
        here = f"{path}.{name}"
        inner = properties.get(name)
        if name == "metadata" and inner == {"type": "object"}:
            yield from _check(item, _METADATA, here)
        elif inner is not None:
            yield from _check(item, inner, here)
        elif isinstance(others, dict):
            yield from _check(item, others, here)
        elif not schema.get("x-kubernetes-preserve-unknown-fields") and others is not True:
            yield here, None


def _limits(value: object, schema: dict) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"Unsupported value {value!r}: supported values: {schema['enum']}"
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{value!r} does not match {schema['pattern']}"
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            yield f"{value!r} is too short or too long"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{value!r} is too small or too large"
        bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
        if bits is not None and not -(2**bits) <= value < 2**bits:
            yield f"{value!r} does not fit into {schema['format']}"
    if isinstance(value, list) and not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"has {len(value)} items"
