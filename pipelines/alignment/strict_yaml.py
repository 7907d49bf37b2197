"""Reads YAML that people wrote: plain values alone, each given once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

MOST_LEVELS = 32
"""How deeply values may be nested; settings need four levels."""


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text, and None if it is empty.

    Raises:
        yaml.YAMLError: It is not YAML, gives a key twice (only one of both could be used), repeats a value by an alias
            (a few lines of aliases can stand for gigabytes), or is nested too deeply.
    """
    return yaml.load(text, Loader=_StrictLoader)


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself keeps the last of two equal keys and follows every alias."""

    def __init__(self, text: str):
        super().__init__(text)
        self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one value and all that is in it."""
        if self.check_event(yaml.AliasEvent):
            raise self._make_error("an alias (*) is not read: write the value again")
        self._level += 1
        if self._level > MOST_LEVELS:
            raise self._make_error(f"values are nested more than {MOST_LEVELS} deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping whose keys differ."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"{key.value!r} is given twice: keep one of both"
                    raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def _make_error(self, problem: str) -> yaml.MarkedYAMLError:
        mark: Any = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return yaml.MarkedYAMLError(None, None, problem, mark)
