"""The known rewards of the simulated oracle: those that ship, and Python functions of the user's own."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
from collections.abc import Callable
from importlib.metadata import version
from math import isfinite
from typing import TYPE_CHECKING

from ..errors import OracleError, SettingsError
from ..settings import did_you_mean

if TYPE_CHECKING:
    from .oracle import Reward


REWARD_MODULES = "OATFLOW_REWARD_MODULES"
"""The environment variable that names the modules, by commas, whose functions may be rewards."""


def allow_module(path: str) -> None:
    """Allow the module of ``module:function`` in this process and those that it starts."""
    module, colon, _ = path.partition(":")
    if colon and module not in _list_allowed_modules():
        os.environ[REWARD_MODULES] = ",".join([*_list_allowed_modules(), module])


def _list_allowed_modules() -> list[str]:
    return [name.strip() for name in os.environ.get(REWARD_MODULES, "").split(",") if name.strip()]


def check_reward(name: str) -> str:
    """Return the name of a reward that ships, or a well-formed ``module:function``, which is not imported.

    Raises:
        ValueError: The name is neither.
    """
    module, colon, function = name.partition(":")
    if colon:
        if function.isidentifier() and module and all(part.isidentifier() for part in module.split(".")):
            return name
        raise ValueError("not a function's import path; write module:function, such as rewards:politeness")
    if name not in REWARDS:
        known = did_you_mean(name, list(REWARDS))
        raise ValueError(f"unknown; {known}; a function of your own is written module:function")
    return name


def open_reward(name: str) -> tuple[str, Reward]:
    """Return a reward's name with its version, and the reward."""
    return REWARDS[name]() if name in REWARDS else import_reward(name)


def import_reward(path: str) -> tuple[str, Reward]:
    """Import ``module:function``. Returns its name with a digest of the module's source, and the function.

    Importing a module runs its code, so it must be allowed: settings come from files and forms that others write. Each
    call of the function raises `OracleError` if it returns anything but a finite number.

    Raises:
        SettingsError: The module is not allowed, or there is no such function.
    """
    module_name, _, name = path.partition(":")
    if module_name not in _list_allowed_modules():
        raise SettingsError(
            f"reward={path!r}: this would run the code of the module {module_name!r}, and it is not allowed; give "
            f"--reward {path} on the command line, or set {REWARD_MODULES}={module_name} (in a cluster: in the image)"
        )
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

    return f"{path}@{_source_digest(module)}", reward


def open_vader() -> tuple[str, Reward]:
    """Return the sentiment in [-1, 1]: VADER's compound score (Hutto & Gilbert 2014)."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    score = SentimentIntensityAnalyzer().polarity_scores
    return f"vader-{version('vaderSentiment')}", lambda prompt, response: float(score(response)["compound"])


def open_length() -> tuple[str, Reward]:
    """Return the number of words over 100."""
    return "length", lambda prompt, response: len(response.split()) / 100


REWARDS: dict[str, Callable[[], tuple[str, Reward]]] = {"vader": open_vader, "length": open_length}
"""The rewards that ship, and how each is opened."""


def _source_digest(module: object) -> str:
    try:
        source = inspect.getsource(module)  # type: ignore[arg-type]
    except (OSError, TypeError):
        source = ""
    return hashlib.sha256(source.encode()).hexdigest()[:12]
