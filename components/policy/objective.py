"""The losses of `registry.LOSSES`, computed on the completions of a forward pass.

B pairs, K tokens of their completions, which are numbered as in `rows`: the chosen ones, then the rejected ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import losses
from .logprobs import sum_by_completion
from .settings import PolicySettings


@dataclass(frozen=True, slots=True)
class Completions:
    """The tokens of B pairs' completions as the policy and the reference see them.

    Attributes:
        completion: (K,) number of the completion that the token belongs to.
        logprobs: (K,) under the policy, with its gradient.
        reference: (K,) the same under the reference, or None where the loss does not need it.
        minus_entropy: (K,) the policy's sum of p log p over the vocabulary at that place, or None.
    """

    completion: Tensor
    logprobs: Tensor
    reference: Tensor | None = None
    minus_entropy: Tensor | None = None

    @property
    def tokens(self) -> Tensor:
        """How many tokens each completion has, (2B,)."""
        return torch.bincount(self.completion).to(self.logprobs.dtype)

    def sum_tokens(self, values: Tensor) -> Tensor:
        """Add up tokens, (K,), to completions, (2B,)."""
        return sum_by_completion(values, self.completion, len(self.tokens))

    def split_sides(self, values: Tensor, per_token: bool = False) -> tuple[Tensor, Tensor]:
        """Add up tokens, (K,), or average them, to the chosen completions, (B,), and the rejected ones, (B,)."""
        summed = self.sum_tokens(values)
        chosen, rejected = (summed / self.tokens if per_token else summed).chunk(2)
        return chosen, rejected

    def find_margins(self, per_token: bool = False) -> Tensor:
        """Return how much more than the reference the policy prefers the chosen completion, (B,)."""
        assert self.reference is not None
        return losses.log_ratio_margin(
            *self.split_sides(self.logprobs, per_token), *self.split_sides(self.reference, per_token)
        )


@dataclass(frozen=True, slots=True)
class PairLosses:
    """A loss for each pair, (B,), and by how much the implicit reward prefers the chosen completion, (B,)."""

    losses: Tensor
    reward_margins: Tensor


def compute_losses(
    given: Completions, settings: PolicySettings, chosen_is_references: Tensor | None = None
) -> PairLosses:
    """Compute the loss that the settings name.

    Args:
        given: The completions.
        settings: Names the loss, and holds the settings that it reads.
        chosen_is_references: In XPO, (B,) of bool: whether the reference drew the chosen completion, or else the
            rejected one. The optimism about what the reference would not have drawn is part of each pair's loss, and
            is reduced with it.
    """
    found = settings.loss.load_function()(given, settings)
    if chosen_is_references is None:
        return found
    from_reference = torch.where(chosen_is_references, *given.split_sides(given.logprobs))
    return replace(found, losses=losses.add_optimism(found.losses, from_reference, settings.xpo_alpha))


def dpo_loss(given: Completions, settings: PolicySettings) -> PairLosses:
    """DPO on summed log-probabilities, with its add-ons."""
    return _dpo_with_add_ons(given, settings, per_token=False)


def lr_dpo_loss(given: Completions, settings: PolicySettings) -> PairLosses:
    """DPO on per-token means, with its add-ons."""
    return _dpo_with_add_ons(given, settings, per_token=True)


def ipo_loss(given: Completions, settings: PolicySettings) -> PairLosses:
    """IPO on sums, as in its paper, or on per-token means, as in Oat."""
    margins = given.find_margins(settings.ipo_per_token)
    return PairLosses(losses.ipo_of_margins(margins, settings.beta), settings.beta * margins.detach())


def slic_loss(given: Completions, settings: PolicySettings) -> PairLosses:
    """SLiC on summed log-probabilities."""
    margins = given.find_margins()
    return PairLosses(losses.slic_of_margins(margins, settings.beta), settings.beta * margins.detach())


def simpo_loss(given: Completions, settings: PolicySettings) -> PairLosses:
    """SimPO on per-token means of the policy alone."""
    margins = losses.reference_free_margin(*given.split_sides(given.logprobs, per_token=True))
    values = losses.simpo_of_margins(margins, settings.beta, settings.gamma_beta_ratio, settings.label_smoothing)
    return PairLosses(values, settings.beta * margins.detach())


def bnf_loss(given: Completions, settings: PolicySettings) -> PairLosses:
    """BNF, divided by the shorter completion of the pair, or by the shortest of all as in Oat."""
    assert given.reference is not None and given.minus_entropy is not None
    rest = losses.other_tokens(given.minus_entropy, given.logprobs)
    chosen, rejected = given.split_sides(losses.bnf_scores(given.logprobs, given.reference, rest))
    shortest = torch.minimum(*given.tokens.chunk(2))
    if settings.bnf_length == "batch":
        shortest = shortest.min().expand_as(shortest)
    rewards, others = given.split_sides(given.logprobs.detach() - given.reference)
    return PairLosses(-losses.reference_free_margin(chosen, rejected) / shortest, rewards - others)


def _dpo_with_add_ons(given: Completions, settings: PolicySettings, per_token: bool) -> PairLosses:
    assert given.reference is not None
    chosen, _ = given.split_sides(given.logprobs, per_token)
    ref_chosen, _ = given.split_sides(given.reference, per_token)
    chosen_tokens, rejected_tokens = given.tokens.chunk(2)
    margins = plain = given.find_margins(per_token)
    alpha_by_beta = settings.len_reg_alpha / settings.beta
    margins = losses.add_length_term(margins, chosen_tokens, rejected_tokens, alpha_by_beta)
    margins = losses.add_positive_term(margins, chosen, ref_chosen, settings.dpo_positive_lambda)
    values = losses.dpo_of_margins(margins, settings.beta, settings.label_smoothing)
    if settings.sft_weight:
        summed, _ = given.split_sides(given.logprobs)
        values = values + settings.sft_weight * losses.sft_per_token(summed, chosen_tokens)
    return PairLosses(values, settings.beta * plain.detach())
