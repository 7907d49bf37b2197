"""The frozen encoder that turns texts into features: its interface, a scripted one, and how to open the right one.

K texts, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from .settings import RewardModelSettings


class Encoder(Protocol):
    """Turns a prompt with an answer into features. It is never trained: equal texts always have equal features."""

    @property
    def identity(self) -> str:
        """A name of everything that features depend on: kind, model by its content, and what is read of a text."""
        ...

    @property
    def features(self) -> int:
        """Number of features of a text."""
        ...

    def encode(self, texts: Sequence[tuple[str, str]]) -> Tensor:
        """Return the features of prompts with their answers, (K, D) in float32, in their order."""
        ...


def open_encoder(
    folder: Path | None,
    settings: RewardModelSettings,
    *,
    trust_remote_code: bool = False,
    allow_pickled_weights: bool = False,
    chat_template: bool = True,
) -> Encoder:
    """Open an encoder.

    Args:
        folder: Folder of a model; None opens the scripted encoder, which needs no model.
        settings: How much is read of a text, and how many texts at once.
        trust_remote_code: Whether code in the folder may be run.
        allow_pickled_weights: Whether the weights may be pickles.
        chat_template: Whether a causal language model reads prompts in its chat template, where it has one.

    Raises:
        ModelError: The folder holds no model that can encode, or something that is not allowed.
    """
    if folder is None:
        return ScriptedEncoder()
    from .transformer_encoder import open_transformer

    return open_transformer(
        folder,
        settings,
        trust_remote_code=trust_remote_code,
        allow_pickled_weights=allow_pickled_weights,
        chat_template=chat_template,
    )


class ScriptedEncoder:
    """Counts words by their hash, those of prompt and answer separately; for experiments with a scripted policy."""

    features = 16
    identity = f"scripted/words/{features}"

    def encode(self, texts: Sequence[tuple[str, str]]) -> Tensor:
        """Return the number of words of each text that fall on each feature."""
        counts = torch.zeros(len(texts), self.features)
        for row, (prompt, answer) in enumerate(texts):
            for side, text in (("prompt", prompt), ("answer", answer)):
                for word in text.split():
                    counts[row, self._hash_word(f"{side} {word}")] += 1
        return counts

    def _hash_word(self, word: str) -> int:
        return hashlib.sha256(word.encode()).digest()[0] % self.features
