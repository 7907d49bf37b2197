"""The duels of a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..records.records import Candidate, Duel, Prompt
from ..seeds import derive
from .selection import group_by_prompt, make_duels
from .settings import ExplorationSettings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Choice:
    """At most one duel for each prompt, in the order of the prompts, and what was measured while choosing them."""

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
    """Choose the duels of a round.

    Args:
        prompts: The prompts of the round.
        round_: The number of the round, from 0.
        candidates: The candidates of all prompts, together by prompt.
        settings: Names the strategy.
        seed: The experiment's seed.
        rewards: (E, K) the reward that each member gives each candidate; None if the experiment has no ensemble.
    """
    chance = partial(derive, seed, round_)
    groups = group_by_prompt(candidates)
    if rewards is None:
        picks = settings.strategy.load_pick()(groups, settings, chance)
        return Choice(make_duels(prompts, groups, picks, chance), {})
    from .informed import pick_informed

    informed = pick_informed(groups, rewards, settings, round_, chance)
    return Choice(make_duels(prompts, groups, informed.picks, chance), informed.facts)
