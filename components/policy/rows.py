"""Pairs as tensors.  R rows of T tokens, K predicted tokens, S completions.

Both completions of a pair continue one prompt, so a pair is one row: prompt, chosen, rejected. The rejected tokens
have the positions that they would have right after the prompt, and do not see the chosen ones. Every token is computed
as it would be in a row of its own, and the prompt is computed once: a third less work for short prompts, and close to
half for long ones. A model that cannot be told what sees what (see `scoring.fits_one_row`) gets two rows a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .tokens import Pair

Tree = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]
"""A prompt, and the completions that continue it in one row."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a model reads, and which of its predictions count.

    Attributes:
        tokens: (R, T).
        positions: (R, T).
        sees: (R, 1, T, T), whether a token sees another, or None where each sees all before it.
        row: (K,) row in which a completion's token is predicted.
        column: (K,) column in which it is predicted.
        label: (K,) that token.
        completion: (K,) number of its completion: of B pairs, 0 to B - 1 are chosen and B to 2B - 1 rejected.
    """

    tokens: Tensor
    positions: Tensor
    sees: Tensor | None
    row: Tensor
    column: Tensor
    label: Tensor
    completion: Tensor

    @property
    def completions(self) -> int:
        """How many completions there are."""
        return int(self.completion.max()) + 1

    def align_tokens(self, values: Sequence[Sequence[float]]) -> Tensor:
        """Bring what is known of each completion's tokens, by completion, into the order of the predictions: (K,)."""
        order = torch.unique_consecutive(self.completion).tolist()
        return torch.tensor([value for number in order for value in values[number]], dtype=torch.float64)

    def split_completions(self, values: Tensor) -> list[Tensor]:
        """Cut what was computed for each prediction, (K,), into one tensor a completion."""
        numbers, counts = torch.unique_consecutive(self.completion, return_counts=True)
        cut = dict(zip(numbers.tolist(), values.split(counts.tolist()), strict=True))
        return [cut[number] for number in range(self.completions)]

    def move_to(self, device: torch.device) -> Rows:
        """Return the same on another device."""
        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        return Rows(**{name: tensor if tensor is None else tensor.to(device) for name, tensor in moved.items()})


def lay_out(pairs: Sequence[Pair], pad: int, one_row: bool) -> Rows:
    """Lay pairs out, each in one row or, its prompt repeated, in two."""
    if one_row:
        return _fill_rows([(pair.prompt, (pair.chosen, pair.rejected)) for pair in pairs], pad, masked=True)
    chosen: list[Tree] = [(pair.prompt, (pair.chosen,)) for pair in pairs]
    rejected: list[Tree] = [(pair.prompt, (pair.rejected,)) for pair in pairs]
    return _fill_rows(chosen + rejected, pad, masked=False)


def _fill_rows(trees: Sequence[Tree], pad: int, masked: bool) -> Rows:
    """Fill the tensors row by row, padded on the right: nothing ever sees the padding that follows it."""
    width = max(len(prompt) + sum(map(len, completions)) for prompt, completions in trees)
    tokens = torch.full((len(trees), width), pad)
    positions = torch.arange(width).repeat(len(trees), 1)
    sees = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(trees), 1, 1, 1) if masked else None
    predicted: list[tuple[int, int, int, int]] = []
    for row, (prompt, completions) in enumerate(trees):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
        start = len(prompt)
        for number, completion in enumerate(completions):
            end = start + len(completion)
            tokens[row, start:end] = torch.tensor(completion)
            positions[row, start:end] = torch.arange(len(prompt), len(prompt) + len(completion))
            if sees is not None:
                sees[row, 0, start:, len(prompt) : start] = False
            columns = [len(prompt) - 1, *range(start, end - 1)]
            named = number * len(trees) + row
            predicted += [(row, column, label, named) for column, label in zip(columns, completion, strict=True)]
            start = end
    return Rows(tokens, positions, sees, *torch.tensor(predicted).T.contiguous())
