"""Direct preference losses.  B pairs; all log-probabilities are sums over a completion's tokens, shape (B,).

A loss returns one value a pair. How these become one number is a choice of its own, and a function of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    """Direct preference optimisation (arXiv:2305.18290, equation 7): -log sigmoid(beta * margin).

    `chosen`, `rejected`: (B,) under the policy; `ref_chosen`, `ref_rejected`: (B,) under the reference. Returns (B,).
    """
    return -logsigmoid(beta * margin(chosen, rejected, ref_chosen, ref_rejected))


def margin(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """How much more than the reference the policy prefers the chosen completion: the difference of log-ratios, (B,).

    Times beta it is the reward margin of DPO's implicit reward, up to a constant of the prompt.
    """
    shapes = {tuple(given.shape) for given in (chosen, rejected, ref_chosen, ref_rejected)}
    if len(shapes) > 1 or chosen.dim() != 1:
        raise ValueError(f"log-probabilities must all have one shape (B,), not {sorted(shapes)}")
    return (chosen - rejected) - (ref_chosen - ref_rejected)


def mean_over_kept(losses: Tensor, keep: Tensor, kept: int | None = None) -> Tensor:
    """Average the losses of the pairs that are kept; zero where none is. What is not kept has no gradient.

    losses: (B,); keep: (B,) of bool. `kept`: how many are kept in the whole optimisation step, where these B pairs are
    only a part of it: then the parts' values add up to the step's mean, wherever the step is cut.
    (Oat divides by all B pairs, kept or not, so that its gradient shrinks with every clash.)
    """
    if losses.shape != keep.shape or losses.dim() != 1:
        raise ValueError(f"losses {tuple(losses.shape)} and keep {tuple(keep.shape)} must have one shape (B,)")
    total = torch.where(keep, losses, torch.zeros_like(losses)).sum()
    return total / max(1, int(keep.sum()) if kept is None else kept)


LOSSES: dict[str, Loss] = {"dpo": dpo}
