"""The tokenizer of a model that judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ModelError


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
