"""Picks that use the epistemic reward model.

E members, M prompts, N candidates each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from ..records.records import Candidate
from .imagination import imagine_pairs, is_burnt_in
from .selection import Chance, Pick
from .settings import ExplorationSettings
from .strategies import Beliefs, draw_orders, pick_best_of_n, repair_clashes


@dataclass(frozen=True, slots=True)
class Informed:
    """A pick for each prompt, or None if it gets no duel, and how unsure the ensemble was."""

    picks: list[Pick | None]
    facts: Mapping[str, float]


def pick_informed(
    groups: Sequence[Sequence[Candidate]],
    rewards: Tensor,
    settings: ExplorationSettings,
    round_: int,
    chance: Callable[..., int],
) -> Informed:
    """Pick two of each prompt's candidates. rewards: (E, K), K = M x N candidates, together by prompt."""
    beliefs = form_beliefs(groups, rewards, settings, chance)
    if settings.strategy.needs == "ensemble":
        picks, before = pick_pairs(groups, beliefs, settings, chance)
    else:
        picks = settings.strategy.load_pick()(groups, settings, chance)
        before = sum(drawn[0].response == drawn[1].response for drawn in groups) / len(groups)
    if settings.model_rollout and is_burnt_in(round_, settings.burn_in_period):
        picks = mix_synthetic_pairs(picks, beliefs, settings, chance("imagine"))
    described = [pick and describe_pick(pick, beliefs, prompt) for prompt, pick in enumerate(picks)]
    facts: dict[str, float] = {
        "clash_rate_before": before,
        "synthetic": sum(bool(pick.synthetic) for pick in described if pick),
        "uncertainty_all": measure_uncertainty(beliefs.rewards),
    }
    unsure = [pick.uncertainty for pick in described if pick and not pick.synthetic and pick.uncertainty is not None]
    return Informed(described, facts | ({"uncertainty_chosen": fmean(unsure)} if unsure else {}))


def form_beliefs(
    groups: Sequence[Sequence[Candidate]], rewards: Tensor, settings: ExplorationSettings, chance: Callable[..., int]
) -> Beliefs:
    """Group the rewards by prompt, and draw the order in which each prompt asks the members.

    In Oat's variant (`exp_law: oat`), all prompts share one order.
    """
    members = len(rewards)
    if settings.exp_law == "oat":
        order = draw_orders([chance("member")], members).expand(len(groups), -1)
    else:
        order = draw_orders([chance(drawn[0].prompt_id, "member") for drawn in groups], members)
    return Beliefs(rewards.reshape(members, len(groups), -1), find_alike(groups), order)


def pick_pairs(
    groups: Sequence[Sequence[Candidate]], beliefs: Beliefs, settings: ExplorationSettings, chance: Chance
) -> tuple[list[Pick | None], float]:
    """Return the strategy's picks with clashes repaired, and the share of clashes before the repair."""
    pairs = settings.strategy.load_pick()(beliefs, settings)
    texts = beliefs.alike.gather(1, pairs)
    before = float((texts[:, 0] == texts[:, 1]).double().mean())
    seeds = torch.tensor([chance(drawn[0].prompt_id, "clash") for drawn in groups])
    pairs, kept = repair_clashes(pairs, beliefs, beliefs.alike, seeds, settings)
    duels = zip(pairs.tolist(), kept.tolist(), strict=True)
    return [Pick(first, second, settings.exp_method) if may else None for (first, second), may in duels], before


def find_alike(groups: Sequence[Sequence[Candidate]]) -> Tensor:
    """Return for each candidate the first candidate of its prompt with the same text, (M, N)."""
    rows = []
    for drawn in groups:
        first: dict[str, int] = {}
        rows.append([first.setdefault(candidate.response, place) for place, candidate in enumerate(drawn)])
    return torch.tensor(rows)


def mix_synthetic_pairs(
    picks: Sequence[Pick | None], beliefs: Beliefs, settings: ExplorationSettings, seed: int
) -> list[Pick | None]:
    """Replace some picks by synthetic pairs; with `pure_model_based`, drop all others."""
    made = imagine_pairs(beliefs, settings.max_model_data_ratio, seed)
    mixed: list[Pick | None] = []
    for prompt, pick in enumerate(picks):
        if not made.which[prompt]:
            mixed.append(None if settings.pure_model_based else pick)
            continue
        best, worst = made.pairs[prompt].tolist()
        member = int(made.member[prompt])
        first_wins = torch.sigmoid(beliefs.rewards[member, prompt, best] - beliefs.rewards[member, prompt, worst])
        label = float(first_wins) if settings.model_data_label == "member" else None
        mixed.append(Pick(best, worst, settings.exp_method, True, member, label))
    return mixed


def describe_pick(pick: Pick, beliefs: Beliefs, prompt: int) -> Pick:
    """Add to a pick what the ensemble predicts, and which candidate it recommends."""
    rewards = beliefs.rewards[:, prompt]
    wins = torch.sigmoid(rewards[:, pick.first] - rewards[:, pick.second])
    best = pick_best_of_n(beliefs.rewards[:, prompt : prompt + 1])
    return replace(
        pick,
        synthetic=bool(pick.synthetic),
        predicted=float(wins.mean()),
        uncertainty=float(measure_spread(wins)),
        recommended=int(best[0]),
    )


def measure_uncertainty(rewards: Tensor) -> float:
    """Return the mean over all pairs of a prompt's candidates of the spread of P(one wins). rewards: (E, M, N)."""
    first, second = torch.triu_indices(rewards.shape[2], rewards.shape[2], offset=1)
    return float(measure_spread(torch.sigmoid(rewards[:, :, first] - rewards[:, :, second])).mean())


def measure_spread(values: Tensor) -> Tensor:
    """Return the standard deviation over the members, (E, ...) -> (...); 0 for a single member."""
    return values.std(0) if len(values) > 1 else torch.zeros_like(values[0])
