"""A round's duels: picked blindly, or by what the reward model believes of the candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..records.records import Candidate, Duel, Prompt
from ..seeds import derive
from .selection import by_prompt, to_duels, uninformed_picks
from .settings import ExplorationSettings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Choice:
    """At most one duel a prompt, in the order of the plan, and what was measured when they were chosen."""

    duels: list[Duel]
    facts: Mapping[str, Any]


def choose_duels(
    prompts: Sequence[Prompt],
    round_: int,
    candidates: Sequence[Candidate],
    settings: ExplorationSettings,
    seed: int,
    rewards: Tensor | None = None,
) -> Choice:
    """Choose the round's duels. rewards: (E, K) every member's reward of the K candidates, where there is an ensemble.

    `seed`: the experiment's.
    """
    chance = partial(derive, seed, round_)
    groups = by_prompt(candidates)
    if rewards is None:
        picks = uninformed_picks(groups, settings, chance)
        return Choice(to_duels(prompts, groups, picks, chance), {})
    from .informed import informed_picks

    informed = informed_picks(groups, rewards, settings, round_, chance)
    return Choice(to_duels(prompts, groups, informed.picks, chance), informed.facts)
