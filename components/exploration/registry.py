"""The strategies, by name: how each picks duels, and what it needs from the rest of the experiment.

A new strategy is one function and one entry in `STRATEGIES`. Settings are validated from here, so that nothing in this
module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to pick which two of each prompt's candidates duel.

    Attributes:
        pick: The function that picks, or its address, "package.module:function", which is imported on first use.
        needs: "ensemble": `pick(beliefs, settings)` gets what the epistemic reward model believes of the candidates,
            and returns a pair for each prompt, (M, 2); clashes are repaired afterwards. "candidates":
            `pick(groups, settings, chance)` gets the candidates of each prompt, and returns a `Pick` or None for each.
        least_members: Smallest ensemble that the strategy works with.
        samples: The only number of candidates that the strategy works with; None: any number from 2 on.
        reads: Settings ("section.name") that mean nothing with strategies that do not list them.
        loss: The only loss (`policy.dap_algo`) that the strategy works with; None: any.
        has_oat_variant: Whether `exp_law: oat` differs from the paper for this strategy.
        is_blind: Whether it takes the first two candidates, whatever is believed of them.
        keeps_some_prompts: Whether only some prompts of a round get a duel (`apl_keep`).
        draws_from_reference: Whether the second candidate of each pair comes from the reference.
        scores_candidates: Whether it reads log-probabilities of the candidates, under the policy and the reference.
    """

    pick: Callable[..., Any] | str
    needs: Literal["candidates", "ensemble"] = "ensemble"
    least_members: int = 1
    samples: int | None = None
    reads: tuple[str, ...] = ()
    loss: str | None = None
    has_oat_variant: bool = False
    is_blind: bool = False
    keeps_some_prompts: bool = False
    draws_from_reference: bool = False
    scores_candidates: bool = False

    def load_pick(self) -> Callable[..., Any]:
        """Return the function that picks."""
        found: Callable[..., Any] = resolve_name(self.pick) if isinstance(self.pick, str) else self.pick
        return found


_ENSEMBLE = "oatflow.components.exploration.strategies"

STRATEGIES: dict[str, Strategy] = {
    "passive": Strategy(
        "oatflow.components.exploration.selection:pick_first_two",
        needs="candidates",
        is_blind=True,
    ),
    "EnnPassive": Strategy(f"{_ENSEMBLE}:pick_enn_passive", has_oat_variant=True, is_blind=True),
    "EnnEETS": Strategy(f"{_ENSEMBLE}:pick_enn_eets", has_oat_variant=True, reads=("exploration.enn_max_try",)),
    "EnnBAITS": Strategy(f"{_ENSEMBLE}:pick_enn_baits", has_oat_variant=True, least_members=2),
    "EnnUncertainty": Strategy(f"{_ENSEMBLE}:pick_enn_uncertainty", has_oat_variant=True, least_members=2),
    "DRTS": Strategy(f"{_ENSEMBLE}:pick_drts"),
    "DeltaUCB": Strategy(f"{_ENSEMBLE}:pick_delta_ucb", reads=("exploration.ucb_beta",)),
    "APL": Strategy(
        "oatflow.components.exploration.apl:pick_by_margin",
        needs="candidates",
        reads=("exploration.apl_certainty_only", "exploration.apl_keep"),
        keeps_some_prompts=True,
        scores_candidates=True,
    ),
    "XPO": Strategy(
        "oatflow.components.exploration.selection:pick_first_two",
        needs="candidates",
        samples=2,
        reads=("policy.xpo_alpha",),
        loss="dpo",
        draws_from_reference=True,
    ),
}
