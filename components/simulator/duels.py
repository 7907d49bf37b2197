"""Who plays, and which two candidates of each prompt a player picks.  E members, M prompts, N candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import RefusedInput
from ..exploration.registry import STRATEGIES
from ..exploration.settings import ExplorationSettings
from ..exploration.strategies import Beliefs, draw_orders, repair_clashes
from ..seeds import derive
from ..settings import did_you_mean
from .worlds import Indices

RANDOM = "random"
"""The baseline: two different candidates, uniformly. Its reward model learns as all others do."""
PLAYERS = (RANDOM, *(name for name, known in STRATEGIES.items() if known.needs == "ensemble"))

Law = Literal["paper", "oat"]
Flags = npt.NDArray[np.bool_]


def list_players(strategies: Sequence[str]) -> list[str]:
    """Return the strategies to play, the random baseline first, each once."""
    return list(dict.fromkeys([RANDOM, *map(check_strategy, strategies)]))


def check_strategy(name: str) -> str:
    """Return a strategy's name as it is spelled here."""
    found = {known.lower(): known for known in PLAYERS}.get(name.strip().lower())
    if found is None:
        raise RefusedInput(f"strategies={name!r}: unknown; {did_you_mean(name, list(PLAYERS))}")
    return found


def pick_pairs(strategy: str, rewards: Tensor, alike: Indices, law: Law, seed: int) -> tuple[Indices, Flags]:
    """Return the pair of each prompt, (M, 2), and whether it may be asked about, (M,).

    rewards: (E, M, N) what every member thinks; alike: (M, N) each candidate's first equal one.
    """
    if strategy == RANDOM:
        return draw_random_pairs(alike, seed), np.ones(len(alike), bool)
    settings = exploration_settings(strategy, law)
    order = order_members(len(rewards), len(alike), law, seed)
    beliefs = Beliefs(rewards, torch.from_numpy(alike), order)
    pairs = settings.strategy.load_pick()(beliefs, settings)
    chance = torch.tensor(derive_seeds(len(alike), seed, "clash"))
    pairs, kept = repair_clashes(pairs, beliefs, beliefs.alike, chance, settings)
    return pairs.numpy(), kept.numpy()


def exploration_settings(strategy: str, law: Law) -> ExplorationSettings:
    """Return a strategy's settings under a law; a strategy that Oat lacks has one law only."""
    given = {"exp_method": strategy, "on_clash": "keep" if law == "oat" else "redraw"}
    return ExplorationSettings.parse(given | ({"exp_law": law} if STRATEGIES[strategy].has_oat_variant else {}))


def order_members(members: int, prompts: int, law: Law, seed: int) -> Tensor:
    """Return the members in random order for every prompt, (M, E); in "oat", in the same one for all."""
    if law == "oat":
        return draw_orders([derive(seed, "member")], members).expand(prompts, -1)
    return draw_orders(derive_seeds(prompts, seed, "member"), members)


def derive_seeds(count: int, seed: int, purpose: str) -> list[int]:
    """Return a seed for each prompt of a round."""
    return [derive(seed, purpose, prompt) for prompt in range(count)]


def draw_random_pairs(alike: Indices, seed: int) -> Indices:
    """Return two different candidates of each prompt, uniformly, (M, 2); where all are equal, a clash."""
    # The order of independent uniform numbers is a uniform order.
    order = np.random.default_rng(seed).random(alike.shape).argsort(axis=1)
    shuffled = np.take_along_axis(alike, order, axis=1)
    second = (shuffled != shuffled[:, :1]).argmax(axis=1)
    return np.stack([order[:, 0], np.take_along_axis(order, second[:, None], axis=1)[:, 0]], axis=1)


def find_clashes(alike: Indices, pairs: Indices) -> Flags:
    """Return which pairs are of equal candidates, (M,)."""
    first, second = np.take_along_axis(alike, pairs, axis=1).T
    same: Flags = first == second
    return same
