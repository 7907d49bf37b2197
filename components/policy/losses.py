"""Direct preference losses.  B pairs, K tokens of their completions.

A loss is computed from each pair's *margin* (B,): how much more than the reference the policy prefers the chosen
completion. Add-ons change the margin before the loss, or are added to the loss. Reductions average a batch's losses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

_EPSILON = 1e-6


def log_ratio_margin(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """Return how much more than the reference the policy prefers the chosen completion, as a log-ratio, (B,).

    All four: (B,) log-probabilities of completions, summed or averaged over their tokens. Times beta, the margin of
    sums is the reward margin of DPO's implicit reward, up to a constant of the prompt.
    """
    _check_one_shape(chosen, rejected, ref_chosen, ref_rejected)
    return (chosen - rejected) - (ref_chosen - ref_rejected)


def reference_free_margin(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return how much the policy prefers the chosen completion, without a reference, (B,)."""
    _check_one_shape(chosen, rejected)
    return chosen - rejected


def dpo_of_margins(margins: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference optimisation (arXiv:2305.18290, equation 7): -log sigmoid(beta * margin), (B,).

    With `label_smoothing` e, the probability that a label is wrong, it is conservative DPO (cDPO, Mitchell 2023):
    -(1 - e) log sigmoid(beta * margin) - e log sigmoid(-beta * margin).
    """
    scaled = beta * margins
    return -(1 - label_smoothing) * logsigmoid(scaled) - label_smoothing * logsigmoid(-scaled)


def ipo_of_margins(margins: Tensor, beta: float) -> Tensor:
    """Identity preference optimisation (arXiv:2310.12036, equation 17): (margin - 1 / (2 beta))^2, (B,).

    The paper's margin is that of summed log-probabilities; Oat gives it per-token means.
    """
    return (margins - 1 / (2 * beta)) ** 2


def slic_of_margins(margins: Tensor, beta: float) -> Tensor:
    """Sequence likelihood calibration as a hinge on log-ratios (arXiv:2305.10425, 2309.06657): max(0, 1 - beta m)."""
    return torch.relu(1 - beta * margins)


def simpo_of_margins(margins: Tensor, beta: float, gamma_beta_ratio: float, label_smoothing: float = 0.0) -> Tensor:
    """Simple preference optimisation (arXiv:2405.14734, equation 6): DPO of (margin - gamma / beta), (B,).

    `margins`: reference-free, of per-token means.
    """
    return dpo_of_margins(margins - gamma_beta_ratio, beta, label_smoothing)


def bnf_scores(logprobs: Tensor, reference: Tensor, rest: Tensor) -> Tensor:
    """Score the tokens of completions by bidirectional negative feedback (arXiv:2410.04834), (K,).

    logprobs, reference: (K,) log-probability of each token under the policy and the reference. rest: (K,) sum of
    p log p over all other tokens of the vocabulary, whose gradient is that of the token alone (`other_tokens`).
    The token's target is t = min(p / q, 1); what it leaves is spread over the other tokens as the policy has them,
    so that the loss pulls a distribution and pushes none away. The targets have no gradient.
    """
    _check_one_shape(logprobs, reference, rest)
    probability, under_reference = logprobs.detach().exp(), reference.exp()
    target = torch.clamp(probability / (under_reference + _EPSILON), max=1.0)
    others = (1 - target + _EPSILON) / (1 - probability + _EPSILON)
    return target * logprobs + others * rest


def other_tokens(minus_entropy: Tensor, logprobs: Tensor) -> Tensor:
    """Return the sum of p log p over every token of the vocabulary but the sampled one, (K,).

    minus_entropy: (K,) that sum over the whole vocabulary, without a gradient: with the p's held fixed, it has none.
    """
    _check_one_shape(minus_entropy, logprobs)
    return minus_entropy - logprobs.detach().exp() * logprobs


def add_length_term(margins: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor, alpha_by_beta: float) -> Tensor:
    """Correct the margin for length (R-DPO, arXiv:2403.19159, equation 9): margin + alpha/beta * (|yw| - |yl|)."""
    _check_one_shape(margins, chosen_tokens, rejected_tokens)
    return margins + alpha_by_beta * (chosen_tokens - rejected_tokens)


def add_positive_term(margins: Tensor, chosen: Tensor, ref_chosen: Tensor, weight: float) -> Tensor:
    """Punish a chosen completion that becomes less likely than under the reference (DPO-Positive, arXiv:2402.13228).

    Equation 3: margin - weight * max(0, log p_ref(chosen) - log p(chosen)).
    """
    _check_one_shape(margins, chosen, ref_chosen)
    return margins - weight * torch.relu(ref_chosen - chosen)


def sft_per_token(chosen: Tensor, chosen_tokens: Tensor) -> Tensor:
    """Negative log-likelihood of the chosen completion per token, from its summed log-probability, (B,)."""
    _check_one_shape(chosen, chosen_tokens)
    return -chosen / chosen_tokens


def add_optimism(losses: Tensor, from_reference: Tensor, alpha: float) -> Tensor:
    """Add the exploration term of XPO (arXiv:2405.21046, algorithm 1): loss + alpha * log p(answer of the reference).

    losses: (B,) of DPO; from_reference: (B,) the policy's log-probability of whichever completion the reference drew.
    """
    _check_one_shape(losses, from_reference)
    return losses + alpha * from_reference


def mean_over_kept(losses: Tensor, keep: Tensor, kept: int | None = None) -> Tensor:
    """Average the losses of the pairs that are kept; zero where none is. What is not kept has no gradient.

    losses: (B,); keep: (B,) of bool. `kept`: how many are kept in the whole optimisation step, where these B pairs are
    only a part of it: then the parts' values add up to the step's mean.
    """
    return _sum_of_kept(losses, keep) / max(1, int(keep.sum()) if kept is None else kept)


def mean_over_all(losses: Tensor, keep: Tensor, pairs: int | None = None) -> Tensor:
    """Average as Oat does, over all pairs, kept or not: the gradient shrinks with every clash.

    losses, keep: as above; `pairs`: how many there are in the whole optimisation step.
    """
    return _sum_of_kept(losses, keep) / max(1, len(losses) if pairs is None else pairs)


REDUCTIONS: dict[str, Callable[[Tensor, Tensor, int | None], Tensor]] = {"kept": mean_over_kept, "all": mean_over_all}


def _sum_of_kept(losses: Tensor, keep: Tensor) -> Tensor:
    _check_one_shape(losses, keep)
    return torch.where(keep, losses, torch.zeros_like(losses)).sum()


def _check_one_shape(*tensors: Tensor) -> None:
    """Refuse shapes that would broadcast: a column and a row would silently become a table."""
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise ValueError(f"all of them must have one shape of one axis, not {', '.join(map(str, shapes))}")
