"""A reward of the user's own: a Python function, found by its import path."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from math import isfinite

from ..errors import OracleError, SettingsError
from .oracle import Reward


def reward_function(path: str) -> tuple[str, Reward]:
    """Import ``module:function``; returns its name with a digest of the module's source, and the function.

    What it returns is checked at every call: `OracleError` for anything but a finite number. Raises `SettingsError`
    where there is no such function.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingsError(
            f"reward={path!r}: cannot be imported ({error}); run where {module_name}.py lies, or install it"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise SettingsError(f"reward={path!r}: there is no function {name!r} in {module.__file__}")

    def reward(prompt: str, response: str) -> float:
        value = function(prompt, response)
        if not isinstance(value, int | float) or not isfinite(value):
            raise OracleError(f"reward {path}: returned {value!r} for an answer to {prompt[:60]!r}; expected a number")
        return float(value)

    return f"{path}@{_digest(module)}", reward


def _digest(module: object) -> str:
    try:
        source = inspect.getsource(module)  # type: ignore[arg-type]
    except (OSError, TypeError):
        source = ""
    return hashlib.sha256(source.encode()).hexdigest()[:12]
