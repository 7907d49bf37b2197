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
from .objective import Completions, compute_losses
from .reference import Scores
from .rows import Rows, lay_out
from .scoring import score_completions
from .settings import PolicySettings
from .stopwatch import Stopwatch
from .tokens import Pair, forward_passes


@dataclass(frozen=True)
class Optimiser:
    """Takes optimisation steps with one loss, in the layout of pairs that suits the model.

    Attributes:
        reference: The reference's scores, by the pair's id; empty where the loss does not need them.
        pad: The token that fills rows up.
        one_row: Whether a pair is one row, or two.
        watch: Adds up the seconds.
    """

    learner: Learner
    settings: PolicySettings
    reference: Scores
    pad: int
    one_row: bool
    watch: Stopwatch

    def take_step(self, step: Sequence[Pair], rate: float) -> dict[str, float]:
        """Take one step; returns what was measured on its pairs before the weights moved.

        The loss is a mean over `rows`, which are the pairs, or, as in Oat, the clashes too; the others are means over
        `pairs`.

        Raises:
            TrainingFailed: Loss or gradient is not finite. It names the step's duels. Nothing is written then, and the
                policy of the round before is kept.
        """
        kept = [pair for pair in step if not pair.is_identical]
        counted = len(step) if self.settings.loss_reduction == "all" else len(kept)
        sums = self._start_sums()
        with self.watch.time_part("forward_backward"):
            for pairs in self._cut_passes(kept):
                loss, measured = self._compute_part(pairs, kept[0], counted)
                sums += measured
                self.learner.add_loss(loss)
            dist.all_reduce(sums)
        loss_sum, margins, right, chosen, rejected = sums.tolist()
        _check_finite("loss", loss_sum / counted, kept)
        with self.watch.time_part("optimizer"):
            norm = self.learner.update_weights(rate)
        _check_finite("norm of the gradient", norm, kept)
        return {
            "loss": loss_sum / counted,
            "reward_margin": margins / len(kept),
            "accuracy": right / len(kept),
            "chosen_logprob": chosen / len(kept),
            "rejected_logprob": rejected / len(kept),
            "grad_norm": norm,
            "lr": rate,
            "pairs": len(kept),
            "rows": counted,
        }

    def measure_pairs(self, pairs: Sequence[Pair]) -> dict[str, float]:
        """Return the share of held-out pairs whose chosen completion the implicit reward prefers, and its margin."""
        sums = self._start_sums()
        with self.watch.time_part("held_out"), torch.no_grad():
            for some in self._cut_passes(pairs):
                sums += self._compute_part(some, pairs[0], len(pairs))[1]
            dist.all_reduce(sums)
        _, margins, right, *_ = sums.tolist()
        return {"held_out_accuracy": right / len(pairs), "held_out_margin": margins / len(pairs)}

    def _start_sums(self) -> Tensor:
        """Return where the sums that `_compute_part` returns are added up."""
        return torch.zeros(5, dtype=torch.float64, device=self.learner.device)

    def _cut_passes(self, pairs: Sequence[Pair]) -> list[list[Pair]]:
        """Return this worker's forward passes over the pairs; every worker makes the same number."""
        return forward_passes(pairs, self.settings.train_batch_size_per_device, dist.get_rank(), dist.get_world_size())

    def _compute_part(self, pairs: Sequence[Pair], filler: Pair, counted: int) -> tuple[Tensor, Tensor]:
        """Return what these pairs add to the loss of `counted` ones, and their sums.

        The sums are those of loss, margin, right order, and log-probability of the chosen and the rejected completion.
        A worker without pairs still takes part, with a filler whose loss is not counted.
        """
        rows = lay_out(pairs or [filler], self.pad, self.one_row)
        scored = self._score_rows(rows, pairs or [filler])
        found = compute_losses(scored, self.settings, find_reference_sides(pairs or [filler], self.learner.device))
        keep = torch.full_like(found.losses, bool(pairs), dtype=torch.bool)
        margins = found.reward_margins
        chosen, rejected = scored.sum_tokens(scored.logprobs.detach()).chunk(2)
        measured = torch.stack(
            [found.losses.detach(), margins, (margins > 0).to(margins.dtype), chosen.to(margins), rejected.to(margins)]
        )
        loss = REDUCTIONS[self.settings.loss_reduction](found.losses, keep, counted)
        return loss, torch.where(keep, measured, 0.0).sum(1)

    def _score_rows(self, rows: Rows, pairs: Sequence[Pair]) -> Completions:
        """Score each token of the pairs' completions."""
        reference = None
        if self.settings.loss.needs_reference:
            known = [self.reference[pair.pair_id] for pair in pairs]
            reference = rows.align_tokens([*(found.chosen for found in known), *(found.rejected for found in known)])
        needs_entropy = self.settings.loss.needs_entropy
        return score_completions(self.learner.model, rows.move_to(self.learner.device), reference, needs_entropy)


def find_reference_sides(pairs: Sequence[Pair], device: torch.device | None = None) -> Tensor | None:
    """Return for each pair of XPO whether the reference drew its chosen completion, (B,); None of other pairs."""
    if any(pair.of_reference is None for pair in pairs):
        return None
    return torch.tensor([pair.of_reference == "chosen" for pair in pairs], device=device)


def _check_finite(what: str, value: float, step: Sequence[Pair]) -> None:
    if not math.isfinite(value):
        duels = ", ".join(pair.duel_id for pair in step)
        raise TrainingFailed(f"the {what} is {value} on the duels {duels}. Training stops; the policy before it stands")
