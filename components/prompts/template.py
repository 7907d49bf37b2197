"""How a prompt, and an answer that is given as text, become tokens: the one place that knows, for all rooms alike."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import SettingsError
from ..records.records import Prompt


class Tokenizer(Protocol):
    """What is asked of a tokenizer; those of transformers have it. `eos_token_id` is None where it knows no end."""

    chat_template: Any
    eos_token_id: Any
    pad_token_id: Any

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]:
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


def encode_prompts(tokenizer: Tokenizer, prompts: Iterable[Prompt], chat_template: bool) -> list[tuple[int, ...]]:
    """Return the tokens of each prompt, as `encode_prompt` gives them."""
    return [tuple(encode_prompt(tokenizer, prompt.text, chat_template)) for prompt in prompts]


def encode_answer(tokenizer: Tokenizer, text: str, longest: int | None = None) -> tuple[tuple[int, ...], str]:
    """Return an answer's tokens and why they end: "stop" by the end-of-sequence token, "length" where it was cut.

    The answer is encoded apart from its prompt, so that the border between them is exact even where a tokenizer would
    merge across it. The end follows, unless the text has it already. What is beyond `longest` tokens is cut off, and no
    end is invented.
    """
    tokens = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    end = tokenizer.eos_token_id
    if end is not None and tokens[-1:] != [end]:
        tokens.append(end)
    if longest is not None and len(tokens) > longest:
        return tuple(tokens[:longest]), "length"
    return tuple(tokens), "stop"


def load_tokenizer(folder: Path | None, trust_remote_code: bool = False) -> Any:
    """Load a model folder's tokenizer; None stands for a scripted policy, which counts words."""
    if folder is None:
        return WordTokenizer()
    if not trust_remote_code and _is_plain(folder):
        # AutoTokenizer would choose the same class, but import torch to do so: seconds in every step.
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


class WordTokenizer:
    """One token a word, for policies that are no models, or models of a few words.

    `vocabulary`: how many ids there are; words may share one. None: one for every word.
    """

    chat_template = "words"
    eos_token_id = 0
    pad_token_id = None

    def __init__(self, vocabulary: int | None = None):
        self._ids = vocabulary or 2**32

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """Return one id a word; the same word has the same id everywhere."""
        return {"input_ids": [zlib.crc32(word.encode()) % self._ids for word in text.split()]}

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
