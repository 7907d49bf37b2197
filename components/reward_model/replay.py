"""The replay buffer: the duels of all rounds that the ensemble learns from, newest last.  B duels, D features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """Duels.

    Attributes:
        chosen: (B, D) features of the chosen answers.
        rejected: (B, D) features of the rejected answers.
        kept: (B,) of bool, which duels to learn from.
    """

    chosen: Tensor
    rejected: Tensor
    kept: Tensor

    def __post_init__(self) -> None:
        is_table = self.chosen.dim() == 2 and self.chosen.shape == self.rejected.shape
        if not is_table or self.kept.shape != self.chosen.shape[:1]:
            shapes = ", ".join(str(tuple(part.shape)) for part in (self.chosen, self.rejected, self.kept))
            raise ValueError(f"chosen, rejected and kept must be (B, D), (B, D) and (B,), not {shapes}")

    @classmethod
    def empty(cls, features: int) -> Self:
        """Return a buffer without a duel."""
        return cls(torch.zeros(0, features), torch.zeros(0, features), torch.zeros(0, dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.kept)

    def extended(self, other: Self, maxlen: int) -> Self:
        """Return the newest `maxlen` duels of both; those of `other` are newer."""
        return type(self)(
            torch.cat([self.chosen, other.chosen])[-maxlen:],
            torch.cat([self.rejected, other.rejected])[-maxlen:],
            torch.cat([self.kept, other.kept])[-maxlen:],
        )

    def draw_batch(self, size: int, seed: int) -> Self:
        """Draw `size` duels uniformly without replacement, or all of them if there are fewer."""
        # In the buffer's order: a draw of all of them is the buffer itself, to the last bit of every sum over it.
        rows = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:size].sort().values
        return type(self)(self.chosen[rows], self.rejected[rows], self.kept[rows])
