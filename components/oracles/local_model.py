"""What the oracles share whose model runs in the step's own process: PairRM and the scorer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..errors import ModelError, OracleError
from ..settings import Section
from .oracle import Circumstances

Settings = TypeVar("Settings", bound=Section)


class LocalModelOracle(Generic[Settings]):
    """An oracle whose model is loaded when it is first needed. Its answers cost nothing."""

    known_reward = None
    paid = False
    spending = None

    def __init__(self, settings: Settings, circumstances: Circumstances | None = None):
        self._settings, self._stores = settings, (circumstances or Circumstances()).stores


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is no such file."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def load_tokenizer(folder: Path, setting: str, trust_remote_code: bool = False) -> Any:
    """Load a folder's tokenizer. Raises `ModelError`, which names the setting, where it cannot be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # of many kinds, by the library that reads it
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{setting}={str(folder)!r}: its tokenizer cannot be read ({reason}); put a tokenizer.json there, "
            "as save_pretrained of a tokenizer that can be read writes it"
        ) from error


@contextmanager
def explained_pass(setting: str, what: str, advice: str) -> Iterator[None]:
    """A context for one pass of the network, without gradients; `OracleError` if the device lacks memory for it."""
    import torch

    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        raise OracleError(f"{setting}: the device lacks memory for {what} in one pass; {advice}") from error


def require_finite(numbers: Sequence[float], what: str, advice: str) -> None:
    """Raise `OracleError` if one of the numbers is not finite."""
    for number in numbers:
        if not isfinite(number):
            raise OracleError(f"{what} is {number}; {advice}")
