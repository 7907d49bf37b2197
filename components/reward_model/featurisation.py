"""What each kind of encoder reads of a prompt with an answer, and which of its states are the features.

PairRM reads the prompt after its source marker and the answer after its candidate marker; the features are the states
at both markers. A causal language model reads prompt and answer as it would have written them; the features are its
last state, the only one that depends on everything. Any other encoder reads both as its two sentences; the features are
the mean state of the answer's tokens. (Oat takes the states at [CLS] and [SEP] of plain DeBERTa instead, which were
never trained to summarise a text.)
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
    """What is read of a text.

    Attributes:
        ids: The tokens.
        spans: First and past-the-end places of spans; the features are the mean states of each span, side by side.
        segments: The sentence that each token belongs to; empty for encoders that were trained without.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    segments: tuple[int, ...] = ()


def pairrm_tokens(tokenizer: Any, prompt: str, answer: str, longest: int) -> Tokens:
    """Return what PairRM reads, as in its training: one answer at a time; a text that is too long loses its end.

    The prompt gets at most 1224 of 2048 tokens, and as much of another `longest`; the answer gets the rest.
    """
    source = _encode_text(tokenizer, SOURCE + prompt, longest * _SOURCE_LENGTH // _PAIRRM_LENGTH)
    candidate = _encode_text(tokenizer, CANDIDATE + answer, longest - len(source))
    # A text may contain a marker itself: ours is the first.
    places = (
        source.index(tokenizer.convert_tokens_to_ids(SOURCE)),
        len(source) + candidate.index(tokenizer.convert_tokens_to_ids(CANDIDATE)),
    )
    return Tokens((*source, *candidate), tuple((place, place + 1) for place in places))


def causal_tokens(tokenizer: Any, prompt: str, answer: str, longest: int, chat_template: bool) -> Tokens:
    """Return what a causal language model reads; a text that is too long loses its beginning.

    An end-of-sequence token follows every answer, so that all texts are compared at the same token.
    """
    ids = (*encode_prompt(tokenizer, prompt, chat_template), *encode_answer(tokenizer, answer)[0])[-longest:]
    return Tokens(ids, ((len(ids) - 1, len(ids)),))


def sentence_tokens(tokenizer: Any, prompt: str, answer: str, longest: int, segmented: bool) -> Tokens:
    """Return prompt and answer as two sentences; a text that is too long loses its prompt's beginning, or more.

    Special tokens around the sentences are kept. The span is the answer with what ends it, so that it is never empty.
    """
    read = tokenizer(prompt, answer).encodings[0]
    sentences = read.sequence_ids
    words = [place for place, sentence in enumerate(sentences) if sentence is not None]
    dropped = set(words[: max(0, len(sentences) - longest)])
    kept = [place for place in range(len(sentences)) if place not in dropped]
    start = next((at for at, place in enumerate(kept) if sentences[place] == 1), len(kept) - 1)
    segments = tuple(read.type_ids[place] for place in kept) if segmented else ()
    return Tokens(tuple(read.ids[place] for place in kept), ((start, len(kept)),), segments)


def group_by_length(tokens: Sequence[Tokens], size: int) -> list[list[int]]:
    """Return batches of texts by their places: those of similar length together, longest first, for little padding."""
    by_length = sorted(range(len(tokens)), key=lambda place: -len(tokens[place].ids))
    return [by_length[start : start + size] for start in range(0, len(by_length), size)]


def pad_batch(batch: Sequence[Tokens], pad: int) -> dict[str, Tensor]:
    """Return an encoder's input: every text is padded on its right to the longest one, and the padding is masked."""
    width = max(len(text.ids) for text in batch)
    rows = {
        "input_ids": [_fill_row(text.ids, width, pad) for text in batch],
        "attention_mask": [_fill_row([1] * len(text.ids), width, 0) for text in batch],
    }
    if batch[0].segments:
        rows["token_type_ids"] = [_fill_row(text.segments, width, 0) for text in batch]
    return {name: torch.tensor(table) for name, table in rows.items()}


def extract_features(states: Tensor, batch: Sequence[Tokens]) -> Tensor:
    """Return the features of a batch, (B, D), from the encoder's last states, (B, places, units)."""
    rows = zip(states, batch, strict=True)
    return torch.stack([torch.cat([row[start:end].mean(0) for start, end in text.spans]) for row, text in rows])


def _encode_text(tokenizer: Any, text: str, longest: int) -> list[int]:
    return list(tokenizer(text, truncation=True, max_length=longest)["input_ids"])


def _fill_row(row: Sequence[int], width: int, filling: int) -> list[int]:
    return [*row, *[filling] * (width - len(row))]
