"""What an experiment optimises: its loss with its add-ons, on the completions of a forward pass.

B pairs, K tokens of their completions, which are numbered as in `rows`: the chosen ones, then the rejected ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import losses
from .logprobs import sum_by_completion
from .settings import PolicySettings


@dataclass(frozen=True, slots=True)
class Completions:
    """The tokens of B pairs' completions as the policy and the reference see them.

    completion: (K,) whose token it is; logprobs: (K,) under the policy, with its gradient; reference: (K,) the same
    under the reference, or None where the loss has no use for it; minus_entropy: (K,) the policy's sum of p log p over
    the vocabulary at that place, or None.
    """

    completion: Tensor
    logprobs: Tensor
    reference: Tensor | None = None
    minus_entropy: Tensor | None = None

    @property
    def tokens(self) -> Tensor:
        """How many tokens each completion has, (2B,)."""
        return torch.bincount(self.completion).to(self.logprobs.dtype)

    def by_completion(self, values: Tensor) -> Tensor:
        """Add up tokens to completions, (2B,)."""
        return sum_by_completion(values, self.completion, len(self.tokens))


@dataclass(frozen=True, slots=True)
class Judged:
    """A loss for each pair, (B,), and by how much the implicit reward prefers the chosen completion, (B,)."""

    losses: Tensor
    reward_margins: Tensor


def judge(given: Completions, settings: PolicySettings, chosen_is_references: Tensor | None = None) -> Judged:
    """Compute the loss that the settings name.

    chosen_is_references: (B,) of bool, in XPO: whether the reference drew the chosen completion, or else the rejected
    one. The optimism about what the reference would not have drawn is part of each pair's loss: it is reduced with it.
    """
    judged = OBJECTIVES[settings.dap_algo](given, settings)
    if chosen_is_references is None:
        return judged
    from_reference = torch.where(chosen_is_references, *_two(given, given.logprobs, per_token=False))
    return replace(judged, losses=losses.optimistic(judged.losses, from_reference, settings.xpo_alpha))


def _dpo(given: Completions, settings: PolicySettings) -> Judged:
    return _with_add_ons(given, settings, per_token=False)


def _lr_dpo(given: Completions, settings: PolicySettings) -> Judged:
    return _with_add_ons(given, settings, per_token=True)


def _with_add_ons(given: Completions, settings: PolicySettings, per_token: bool) -> Judged:
    chosen, rejected, ref_chosen, ref_rejected = _four(given, per_token)
    chosen_tokens, rejected_tokens = given.tokens.chunk(2)
    margins = plain = losses.margin(chosen, rejected, ref_chosen, ref_rejected)
    alpha_by_beta = settings.len_reg_alpha / settings.beta
    margins = losses.length_regularised(margins, chosen_tokens, rejected_tokens, alpha_by_beta)
    margins = losses.positive(margins, chosen, ref_chosen, settings.dpo_positive_lambda)
    values = losses.dpo(margins, settings.beta, settings.label_smoothing)
    if settings.sft_weight:
        summed, _ = given.by_completion(given.logprobs).chunk(2)
        values = values + settings.sft_weight * losses.sft(summed, chosen_tokens)
    return Judged(values, settings.beta * plain.detach())


def _ipo(given: Completions, settings: PolicySettings) -> Judged:
    margins = losses.margin(*_four(given, settings.ipo_per_token))
    return Judged(losses.ipo(margins, settings.beta), settings.beta * margins.detach())


def _slic(given: Completions, settings: PolicySettings) -> Judged:
    margins = losses.margin(*_four(given, per_token=False))
    return Judged(losses.slic(margins, settings.beta), settings.beta * margins.detach())


def _simpo(given: Completions, settings: PolicySettings) -> Judged:
    margins = losses.reference_free_margin(*_two(given, given.logprobs, per_token=True))
    values = losses.simpo(margins, settings.beta, settings.gamma_beta_ratio, settings.label_smoothing)
    return Judged(values, settings.beta * margins.detach())


def _bnf(given: Completions, settings: PolicySettings) -> Judged:
    assert given.reference is not None and given.minus_entropy is not None
    rest = losses.other_tokens(given.minus_entropy, given.logprobs)
    scores = given.by_completion(losses.bnf_scores(given.logprobs, given.reference, rest))
    chosen_tokens, rejected_tokens = given.tokens.chunk(2)
    shortest = torch.minimum(chosen_tokens, rejected_tokens)
    if settings.bnf_length == "batch":
        shortest = shortest.min().expand_as(shortest)
    chosen, rejected = scores.chunk(2)
    rewards, others = given.by_completion(given.logprobs.detach() - given.reference).chunk(2)
    return Judged(-losses.reference_free_margin(chosen, rejected) / shortest, rewards - others)


def _four(given: Completions, per_token: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log-probabilities of completions: the policy's of chosen and rejected, then the reference's."""
    assert given.reference is not None
    return *_two(given, given.logprobs, per_token), *_two(given, given.reference, per_token)


def _two(given: Completions, values: Tensor, per_token: bool) -> tuple[Tensor, Tensor]:
    summed = given.by_completion(values)
    chosen, rejected = (summed / given.tokens if per_token else summed).chunk(2)
    return chosen, rejected


OBJECTIVES: dict[str, Callable[[Completions, PolicySettings], Judged]] = {
    "dpo": _dpo, "lr_dpo": _lr_dpo, "ipo": _ipo, "slic": _slic, "simpo": _simpo, "bnf": _bnf,
}  # fmt: skip
