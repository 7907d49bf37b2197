"""The losses of the ensemble: of duels (Bradley-Terry), and a pull to the initial weights.  E members, B duels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, softplus

from .network import Weights
from .settings import RewardModelSettings


def duel_loss(chosen: Tensor, rejected: Tensor, kept: Tensor, mask: Literal["row", "broadcast"]) -> Tensor:
    """Return the negative log-likelihood that the chosen answers won (Bradley-Terry; SEA, arXiv:2411.01493), a scalar.

    chosen, rejected: (E, B) each member's rewards of the duels' answers; kept: (B,) of bool, which duels to learn from.
    """
    _check_shapes(chosen, rejected, kept)
    return REDUCTIONS[mask](softplus(rejected - chosen), kept)


def mean_over_kept(losses: Tensor, kept: Tensor) -> Tensor:
    """Average (E, B) over the duels that are kept; zero where none is. What is not kept has no gradient."""
    return torch.where(kept, losses, 0.0).sum() / (len(losses) * kept.sum().clamp(min=1))


def mean_times_share_kept(losses: Tensor, kept: Tensor) -> Tensor:
    """Average as Oat's code does, whose mask broadcasts to (E, B, B): excluded duels have a gradient too."""
    return losses.mean() * kept.to(losses.dtype).mean()


REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"row": mean_over_kept, "broadcast": mean_times_share_kept}


def anchor_penalty(weights: Weights, anchor: Weights) -> Tensor:
    """Return the mean squared distance of the members from their initial weights, over all parameters, a scalar."""
    # Sorted: weights that come back from bytes have another order, and the sum would have another last digit.
    squares = sum(mse_loss(weights[name], anchor[name], reduction="sum") for name in sorted(weights))
    return squares / sum(weight.numel() for weight in weights.values())


def anchor_strength(settings: RewardModelSettings, queries: int) -> float:
    """Return the weight of the penalty: it fades with every query, as a prior does beside more and more data.

    The paper's factor is fixed; Oat's code lets it fade.
    """
    if settings.rm_fixed_reg:
        return settings.enn_lambda
    return settings.enn_lambda * settings.rm_batch_size / max(1, queries)


def _check_shapes(chosen: Tensor, rejected: Tensor, kept: Tensor) -> None:
    """Refuse shapes that would broadcast: that is how Oat's mask came to keep every duel."""
    if chosen.shape != rejected.shape or chosen.dim() != 2 or kept.shape != chosen.shape[1:]:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (chosen, rejected, kept))
        raise ValueError(f"chosen, rejected and kept must be (E, B), (E, B) and (B,), not {shapes}")
