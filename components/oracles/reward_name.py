"""What a known reward may be called. Pure: nothing is imported that a name only mentions."""

from __future__ import annotations

from ..settings import did_you_mean

REWARDS = ("vader", "length")


def check_reward(name: str) -> str:
    """Return the name of a reward that ships, or a well-formed ``module:function``. Raises `ValueError`."""
    module, colon, function = name.partition(":")
    if colon:
        if function.isidentifier() and module and all(part.isidentifier() for part in module.split(".")):
            return name
        raise ValueError("not a function's import path; write module:function, such as rewards:politeness")
    if name not in REWARDS:
        known = did_you_mean(name, list(REWARDS))
        raise ValueError(f"unknown; {known}; a function of your own is written module:function")
    return name
