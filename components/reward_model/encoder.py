"""What the reward model sees of a text: the interface of a frozen encoder, one that needs no model, and how to open it.

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
    """Turns a prompt with an answer into features, always the same ones: nothing in it ever learns."""

    @property
    def identity(self) -> str:
        """Name everything that a feature depends on: kind, model by its content, and what is read of a text."""
        ...

    @property
    def features(self) -> int:
        """How many features a text has."""
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
    """Open the encoder in a model's folder; None stands for the scripted one, which needs no model.

    `chat_template`: whether a causal language model reads the prompt as its chat template has it, where it has one.
    Raises `ModelError` where the folder holds no model that can encode, or what is not allowed.
    """
    if folder is None:
        return ScriptedEncoder()
    from .transformer_encoder import open_transformer

    return open_transformer(
        folder, settings, trust_remote_code=trust_remote_code, allow_pickled_weights=allow_pickled_weights,
        chat_template=chat_template,
    )  # fmt: skip


class ScriptedEncoder:
    """Counts words by their hash, those of prompt and answer apart: for pipelines whose policy is no model."""

    features = 16
    identity = f"scripted/words/{features}"

    def encode(self, texts: Sequence[tuple[str, str]]) -> Tensor:
        """Return how many words of each text fall on each feature."""
        counts = torch.zeros(len(texts), self.features)
        for row, (prompt, answer) in enumerate(texts):
            for side, text in (("prompt", prompt), ("answer", answer)):
                for word in text.split():
                    counts[row, self._feature(f"{side} {word}")] += 1
        return counts

    def _feature(self, word: str) -> int:
        return hashlib.sha256(word.encode()).digest()[0] % self.features
