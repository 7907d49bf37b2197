"""Optimisation steps on pairs: the loss of a step is the mean over its pairs, however they are cut and spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import TrainingFailed
from .learner import Learner
from .losses import LOSSES, margin, mean_over_kept
from .rows import lay_out
from .scoring import completion_logprobs
from .settings import PolicySettings
from .stopwatch import Stopwatch
from .tokens import Pair, forward_passes

Scores = Mapping[Pair, tuple[float, float]]
"""Log-probabilities of a pair's chosen and rejected completion under the reference."""


@dataclass(frozen=True)
class Optimiser:
    """Takes optimisation steps with one loss, in the layout of pairs that suits the model."""

    learner: Learner
    settings: PolicySettings
    reference: Scores
    pad: int
    one_row: bool
    watch: Stopwatch

    def take(self, step: Sequence[Pair], rate: float) -> dict[str, float]:
        """Take one step; returns what was measured on its pairs before the weights moved.

        Raises `TrainingFailed` if the loss is not finite; the weights have not moved then.
        """
        sums = torch.zeros(3, dtype=torch.float64, device=self.learner.device)
        with self.watch.of("forward_backward"):
            rank, world = dist.get_rank(), dist.get_world_size()
            for pairs in forward_passes(step, self.settings.train_batch_size_per_device, rank, world):
                loss, measured = self.part_of_loss(pairs, step)
                sums += measured
                self.learner.learn(loss)
            dist.all_reduce(sums)
        loss_value, reward_margin, accuracy = (value / len(step) for value in sums.tolist())
        if not math.isfinite(loss_value):
            raise TrainingFailed(f"the loss is {loss_value} on the duels {', '.join(pair.duel_id for pair in step)}")
        with self.watch.of("optimizer"):
            norm = self.learner.update(rate)
        return {"loss": loss_value, "reward_margin": reward_margin, "accuracy": accuracy, "grad_norm": norm, "lr": rate}

    def part_of_loss(self, pairs: Sequence[Pair], step: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Return what these pairs add to the step's loss, and their sums of loss, reward margin, and right order."""
        # A worker without pairs takes part all the same, with one that it does not keep.
        filled = pairs or step[:1]
        rows = lay_out(filled, self.pad, self.one_row).to(self.learner.device)
        chosen, rejected = completion_logprobs(self.learner.model, rows).chunk(2)
        keep = torch.full_like(chosen, bool(pairs), dtype=torch.bool)
        under = torch.tensor([self.reference[pair] for pair in filled], dtype=chosen.dtype, device=chosen.device)
        given = (chosen, rejected, under[:, 0], under[:, 1])
        losses = LOSSES[self.settings.dap_algo](*given, self.settings.beta)
        rewards = self.settings.beta * margin(*given).detach()
        measured = torch.stack([losses.detach(), rewards, (rewards > 0).to(rewards.dtype)])
        return mean_over_kept(losses, keep, len(step)), (measured * keep).sum(1)
