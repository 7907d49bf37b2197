"""Log-probabilities of pairs under the reference, computed once for each pair of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from ..records.records import ReferenceScore
from .rows import lay_out
from .scoring import score_completions
from .tokens import Pair

Scores = Mapping[str, ReferenceScore]
"""Scores under the reference, by the pair's id."""


def index_scores(scores: Sequence[ReferenceScore]) -> dict[str, ReferenceScore]:
    """Return the scores by the id of their pair."""
    return {found.pair_id: found for found in scores}


def score_under_reference(
    model: Any, pairs: Sequence[Pair], size: int, pad: int, one_row: bool, device: torch.device
) -> list[ReferenceScore]:
    """Score each pair's tokens under `model`, `size` pairs a pass. The workers share the work; each gets all."""
    model.to(device)
    counts = [len(completion) for pair in pairs for completion in (pair.chosen, pair.rejected)]
    flat = torch.zeros(sum(counts), device=device)
    places = flat.split(counts)
    by_length = sorted(range(len(pairs)), key=lambda index: pairs[index].length)
    chunks = [by_length[start : start + size] for start in range(0, len(pairs), size)]
    with torch.no_grad():
        for chunk in chunks[dist.get_rank() :: dist.get_world_size()]:
            rows = lay_out([pairs[index] for index in chunk], pad, one_row).move_to(device)
            found = rows.split_completions(score_completions(model, rows).logprobs)
            for side, completions in enumerate((found[: len(chunk)], found[len(chunk) :])):
                for index, logprobs in zip(chunk, completions, strict=True):
                    places[2 * index + side].copy_(logprobs)
    dist.all_reduce(flat)
    values = [tuple(place.tolist()) for place in places]
    return [ReferenceScore(pair.pair_id, *values[2 * index : 2 * index + 2]) for index, pair in enumerate(pairs)]
