"""Settings that were written under former names: in experiments that have begun, settings files and submitted forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOVED = {"reward": ("labeling", "simulated"), "reward_temperature": ("labeling", "simulated")}
"""By setting: the section that it was in, and the one that it is in now."""
_ORACLE_SETTINGS = (("labeling", "preference_oracle"), ("evaluation", "eval_oracle"))
_ORACLES = {"reward_model": "scorer"}
BEFORE: Mapping[str, Mapping[str, Any]] = {"policy": {"leftover_pairs": "own_step"}}
"""What experiments did before there was such a setting, where that is not the setting's default."""


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


def update_begun(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an experiment that has begun under today's names, with what its version did unasked.

    Such an experiment has all settings of its version: one that it lacks is younger.
    """
    updated = update_settings(sections)
    return updated | {name: {**before, **updated.get(name, {})} for name, before in BEFORE.items()}
