"""How a prompt becomes tokens: the one place that knows, for sampling, training and evaluation alike."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import SettingsError


class Tokenizer(Protocol):
    """What `encode_prompt` asks of a tokenizer; those of transformers have it."""

    chat_template: Any

    def __call__(self, text: str) -> Mapping[str, Any]:
        """Return the token ids of plain text under ``input_ids``."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """Return the token ids of a conversation under ``input_ids``."""
        ...


def encode_prompt(tokenizer: Tokenizer, text: str, apply_chat_template: bool) -> list[int]:
    """Return the tokens that the policy continues: one user turn of the chat template, or the plain text.

    Raises `SettingsError` where a chat template is asked for and the tokenizer has none.
    """
    if not apply_chat_template:
        return list(tokenizer(text)["input_ids"])
    if tokenizer.chat_template is None:
        raise SettingsError(
            "prompts.apply_chat_template=True: the model's tokenizer has no chat template; "
            "set it to false, or take a model that was trained to chat"
        )
    turn = [{"role": "user", "content": text}]
    return list(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)["input_ids"])


def load_tokenizer(folder: Path | None) -> Any:
    """Load a model folder's tokenizer; None stands for a scripted policy, which counts words."""
    if folder is None:
        return WordTokenizer()
    if _is_plain(folder):
        # AutoTokenizer would choose the same class, but import torch to do so: seconds in every step.
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


class WordTokenizer:
    """One token a word, for policies that are no models."""

    chat_template = "words"

    def __call__(self, text: str) -> dict[str, list[int]]:
        """Return one id a word; the same word has the same id everywhere."""
        return {"input_ids": [zlib.crc32(word.encode()) for word in text.split()]}

    def apply_chat_template(self, conversation: Sequence[Mapping[str, str]], **_: Any) -> dict[str, list[int]]:
        """Return the words of all turns."""
        return self(" ".join(turn["content"] for turn in conversation))


def _is_plain(folder: Path) -> bool:
    """Whether the folder names the tokenizer class that needs no model-specific code."""
    config = folder / "tokenizer_config.json"
    if not config.is_file() or not (folder / "tokenizer.json").is_file():
        return False
    named = json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class")
    return named in ("TokenizersBackend", "PreTrainedTokenizerFast")
