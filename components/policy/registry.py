"""The losses, by name: what computes each, which settings it reads, and what it needs from a forward pass.

A new loss is one function and one entry in `LOSSES`. Settings are validated from here, so that nothing in this module
imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .objective import Completions, PairLosses
    from .settings import PolicySettings

    LossFunction = Callable[[Completions, PolicySettings], PairLosses]


@dataclass(frozen=True, slots=True)
class Loss:
    """One direct preference loss.

    Attributes:
        function: The function that computes it, or its address, "package.module:function", which is imported on first
            use. It gets `objective.Completions` and `PolicySettings`, and returns `objective.PairLosses`.
        reads: The settings of a loss that it reads. Any other setting of a loss is refused where this one is chosen.
        needs_reference: Whether it compares the policy with the reference.
        needs_entropy: Whether it needs the policy's entropy at every token.
    """

    function: LossFunction | str
    reads: frozenset[str] = frozenset()
    needs_reference: bool = True
    needs_entropy: bool = False

    def load_function(self) -> LossFunction:
        """Return the function that computes the loss."""
        found: LossFunction = resolve_name(self.function) if isinstance(self.function, str) else self.function
        return found


_HERE = "oatflow.components.policy.objective"
_OF_DPO = frozenset({"beta", "label_smoothing", "len_reg_alpha", "dpo_positive_lambda", "sft_weight"})

LOSSES: dict[str, Loss] = {
    "dpo": Loss(f"{_HERE}:dpo_loss", _OF_DPO | {"xpo_alpha"}),
    "lr_dpo": Loss(f"{_HERE}:lr_dpo_loss", _OF_DPO),
    "ipo": Loss(f"{_HERE}:ipo_loss", frozenset({"beta", "ipo_per_token"})),
    "slic": Loss(f"{_HERE}:slic_loss", frozenset({"beta"})),
    "simpo": Loss(
        f"{_HERE}:simpo_loss", frozenset({"beta", "label_smoothing", "gamma_beta_ratio"}), needs_reference=False
    ),
    "bnf": Loss(f"{_HERE}:bnf_loss", frozenset({"bnf_length"}), needs_entropy=True),
}
