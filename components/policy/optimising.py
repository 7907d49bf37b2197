"""Optimisation steps on pairs: the loss of a step is a mean over its pairs, however they are cut and spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import TrainingFailed
from .learner import Learner
from .losses import REDUCTIONS
from .objective import Completions, judge
from .reference import Scores
from .rows import Rows, lay_out
from .scoring import score
from .settings import PolicySettings
from .stopwatch import Stopwatch
from .tokens import Pair, forward_passes


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

        Raises `TrainingFailed`, naming the step's duels, if loss or gradient is not finite: nothing is written then,
        and the policy of the round before stands.
        """
        kept = [pair for pair in step if not pair.is_identical]
        counted = len(step) if self.settings.loss_reduction == "all" else len(kept)
        sums = self.no_sums()
        with self.watch.of("forward_backward"):
            for pairs in self.passes(kept):
                loss, measured = self.part_of_loss(pairs, kept[0], counted)
                sums += measured
                self.learner.learn(loss)
            dist.all_reduce(sums)
        loss_sum, margins, right, chosen, rejected = sums.tolist()
        _check_finite("loss", loss_sum / counted, kept)
        with self.watch.of("optimizer"):
            norm = self.learner.update(rate)
        _check_finite("norm of the gradient", norm, kept)
        return {
            "loss": loss_sum / counted, "reward_margin": margins / len(kept), "accuracy": right / len(kept),
            "chosen_logprob": chosen / len(kept), "rejected_logprob": rejected / len(kept),
            "grad_norm": norm, "lr": rate,
        }  # fmt: skip

    def measure(self, pairs: Sequence[Pair]) -> tuple[float, float]:
        """Return of how many pairs the policy's implicit reward prefers the chosen completion, and its mean margin."""
        sums = self.no_sums()
        with self.watch.of("held_out"), torch.no_grad():
            for some in self.passes(pairs):
                sums += self.part_of_loss(some, pairs[0], len(pairs))[1]
            dist.all_reduce(sums)
        _, margins, right, *_ = sums.tolist()
        return right / len(pairs), margins / len(pairs)

    def no_sums(self) -> Tensor:
        """Return where the sums that `part_of_loss` returns are added up."""
        return torch.zeros(5, dtype=torch.float64, device=self.learner.device)

    def passes(self, pairs: Sequence[Pair]) -> list[list[Pair]]:
        """Return this worker's forward passes over the pairs: as many as every other worker makes."""
        return forward_passes(pairs, self.settings.train_batch_size_per_device, dist.get_rank(), dist.get_world_size())

    def part_of_loss(self, pairs: Sequence[Pair], filler: Pair, counted: int) -> tuple[Tensor, Tensor]:
        """Return what these pairs add to the loss of `counted` ones, and their sums.

        These are of loss, margin, right order, and log-probability of the whole chosen and the whole rejected answer.
        A worker without pairs takes part all the same, with a filler that it does not keep.
        """
        rows = lay_out(pairs or [filler], self.pad, self.one_row)
        scored = self.score(rows, pairs or [filler])
        judged = judge(scored, self.settings, chosen_is_references(pairs or [filler], self.learner.device))
        keep = torch.full_like(judged.losses, bool(pairs), dtype=torch.bool)
        margins = judged.reward_margins
        chosen, rejected = scored.by_completion(scored.logprobs.detach()).chunk(2)
        measured = torch.stack(
            [judged.losses.detach(), margins, (margins > 0).to(margins.dtype), chosen.to(margins), rejected.to(margins)]
        )
        loss = REDUCTIONS[self.settings.loss_reduction](judged.losses, keep, counted)
        return loss, torch.where(keep, measured, 0.0).sum(1)

    def score(self, rows: Rows, pairs: Sequence[Pair]) -> Completions:
        """Score each token of the pairs' completions."""
        reference = None
        if self.settings.uses_reference:
            known = [self.reference[pair.pair_id] for pair in pairs]
            reference = rows.aligned([*(found.chosen for found in known), *(found.rejected for found in known)])
        with_entropy = self.settings.dap_algo == "bnf"
        return score(self.learner.model, rows.to(self.learner.device), reference, with_entropy)


def chosen_is_references(pairs: Sequence[Pair], device: torch.device | None = None) -> Tensor | None:
    """Return for each pair of XPO whether the reference drew its chosen completion, (B,); None of other pairs."""
    if any(pair.of_reference is None for pair in pairs):
        return None
    return torch.tensor([pair.of_reference == "chosen" for pair in pairs], device=device)


def _check_finite(what: str, value: float, step: Sequence[Pair]) -> None:
    if not math.isfinite(value):
        duels = ", ".join(pair.duel_id for pair in step)
        raise TrainingFailed(f"the {what} is {value} on the duels {duels}. Training stops; the policy before it stands")
