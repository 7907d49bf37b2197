"""What experiments, settings files and submitted forms that are older than this version mean by their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOVED = {"reward": ("labeling", "simulated"), "reward_temperature": ("labeling", "simulated")}
"""By setting: the section that it was in, and the one that it is in now."""
_ORACLE_SETTINGS = (("labeling", "preference_oracle"), ("evaluation", "eval_oracle"))
_ORACLES = {"reward_model": "scorer"}
FORMER_DEFAULTS: dict[tuple[str, str], Any] = {
    ("labeling", "ties"): "oat",
    ("policy", "leftover_pairs"): "own_step",
}
"""What experiments did that are older than a setting, by its section and name, if its default changes what they do."""


def update_settings(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by section under today's names. Settings that carry today's names already stay as they are.

    A setting that is given under both names stays under both, if the values differ: validation refuses the former one.
    """
    updated = {name: dict(section) if isinstance(section, Mapping) else section for name, section in sections.items()}
    for setting, (former, now) in _MOVED.items():
        source = updated.get(former)
        if isinstance(source, dict) and setting in source:
            target = updated.setdefault(now, {})
            if isinstance(target, dict) and target.setdefault(setting, source[setting]) == source[setting]:
                del source[setting]
    for section, setting in _ORACLE_SETTINGS:
        named = updated.get(section)
        if isinstance(named, dict) and isinstance(named.get(setting), str):
            named[setting] = _ORACLES.get(named[setting], named[setting])
    return updated


def add_former_defaults(frozen: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return an experiment's settings under today's names, with what it did where it is older than a setting."""
    settings: dict[str, dict[str, Any]] = update_settings(frozen)
    for (section, name), value in FORMER_DEFAULTS.items():
        settings.setdefault(section, {}).setdefault(name, value)
    return settings
