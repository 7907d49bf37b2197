"""What an encoder reads of a prompt with an answer, and which of its states are the features; one law for each kind.

PairRM reads the prompt after its source marker and the answer after its candidate marker, and is asked for the states
at both markers. A causal language model reads prompt and answer as it would have written them, up to the end of the
answer, and is asked for its last state, the only one that has seen everything. Any other encoder reads both as its two
sentences, and is asked for the mean state of the answer's tokens. (Oat takes the states at [CLS] and [SEP] of plain
DeBERTa instead, which no training has made a summary of anything.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..prompts.template import encode_answer, encode_prompt

SOURCE, CANDIDATE = "<|source|>", "<|candidate|>"
# PairRM was trained with at most 1224 of its 2048 tokens for the prompt.
_SOURCE_LENGTH, _PAIRRM_LENGTH = 1224, 2048


@dataclass(frozen=True, slots=True)
class Tokens:
    """What is read. `spans`: first and past-the-end places; the feature is their mean states, side by side.

    `segments` say which sentence a token belongs to, for encoders that were trained to know; others have none.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    segments: tuple[int, ...] = ()


def pairrm_tokens(tokenizer: Any, prompt: str, answer: str, longest: int) -> Tokens:
    """Read as PairRM was trained to, one answer at a time; what is too long loses its end, as it did in training.

    The prompt gets at most 1224 of 2048 tokens, and as much of another `longest`; the answer gets the rest.
    """
    source = _encoded(tokenizer, SOURCE + prompt, longest * _SOURCE_LENGTH // _PAIRRM_LENGTH)
    candidate = _encoded(tokenizer, CANDIDATE + answer, longest - len(source))
    # A text may spell a marker itself: ours is the first.
    places = (
        source.index(tokenizer.convert_tokens_to_ids(SOURCE)),
        len(source) + candidate.index(tokenizer.convert_tokens_to_ids(CANDIDATE)),
    )
    return Tokens((*source, *candidate), tuple((place, place + 1) for place in places))


def causal_tokens(tokenizer: Any, prompt: str, answer: str, longest: int, chat_template: bool) -> Tokens:
    """Read as the policy reads and writes; what is too long loses its prompt's beginning, or more than that.

    The answer ends as one that ended by itself, so that all texts are compared at the same token.
    """
    ids = (*encode_prompt(tokenizer, prompt, chat_template), *encode_answer(tokenizer, answer)[0])[-longest:]
    return Tokens(ids, ((len(ids) - 1, len(ids)),))


def sentence_tokens(tokenizer: Any, prompt: str, answer: str, longest: int, segmented: bool) -> Tokens:
    """Read prompt and answer as two sentences; what is too long loses its prompt's beginning, or more than that.

    What the tokenizer puts around the sentences stays. The mean is over the answer and what ends it, so that there is
    something even where the answer is empty.
    """
    read = tokenizer(prompt, answer).encodings[0]
    sentences = read.sequence_ids
    words = [place for place, sentence in enumerate(sentences) if sentence is not None]
    dropped = set(words[: max(0, len(sentences) - longest)])
    kept = [place for place in range(len(sentences)) if place not in dropped]
    start = next((at for at, place in enumerate(kept) if sentences[place] == 1), len(kept) - 1)
    segments = tuple(read.type_ids[place] for place in kept) if segmented else ()
    return Tokens(tuple(read.ids[place] for place in kept), ((start, len(kept)),), segments)


def batches(tokens: Sequence[Tokens], size: int) -> list[list[int]]:
    """Return which texts to read together: those of like length, for the least padding, longest first."""
    by_length = sorted(range(len(tokens)), key=lambda place: -len(tokens[place].ids))
    return [by_length[start : start + size] for start in range(0, len(by_length), size)]


def padded(batch: Sequence[Tokens], pad: int) -> dict[str, Tensor]:
    """Return an encoder's input: as wide as the longest text, each filled up on its right with what is masked."""
    width = max(len(text.ids) for text in batch)
    rows = {
        "input_ids": [_filled(text.ids, width, pad) for text in batch],
        "attention_mask": [_filled([1] * len(text.ids), width, 0) for text in batch],
    }
    if batch[0].segments:
        rows["token_type_ids"] = [_filled(text.segments, width, 0) for text in batch]
    return {name: torch.tensor(table) for name, table in rows.items()}


def features(states: Tensor, batch: Sequence[Tokens]) -> Tensor:
    """Return the features of a batch, (B, D), from the encoder's last states, (B, places, units)."""
    return torch.stack([
        torch.cat([row[start:end].mean(0) for start, end in text.spans])
        for row, text in zip(states, batch, strict=True)
    ])  # fmt: skip


def _encoded(tokenizer: Any, text: str, longest: int) -> list[int]:
    return list(tokenizer(text, truncation=True, max_length=longest)["input_ids"])


def _filled(row: Sequence[int], width: int, filling: int) -> list[int]:
    return [*row, *[filling] * (width - len(row))]
