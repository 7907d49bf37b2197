"""One strategy in one world, from the first query to the last.  E members, M prompts, N candidates, D features."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, inf, nan

import numpy as np
import torch
from torch import Tensor

from ..evaluation.regret import duel_regret
from ..reward_model.fitting import Ensemble, fit_ensemble, start_ensemble
from ..reward_model.network import compute_rewards
from ..reward_model.replay import Replay
from ..reward_model.settings import RewardModelSettings
from ..seeds import derive
from .duels import Flags, Law, find_clashes, pick_pairs
from .held_out import measure_held_out
from .worlds import Contexts, Floats, Indices, World

PATIENCE = 10
"""How many times the rounds that a strategy without clashes needs, it may take at most."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is the same for all who play.

    `law`: in "paper", a clash is repaired if the members disagree, and else costs nothing and teaches nothing; in
    "oat", it stands and costs a query. `temperature`: of the oracle; at 0 the better answer always wins.
    """

    queries: int = 2560
    prompts: int = 64
    temperature: float = 1.0
    law: Law = "paper"
    reward_model: RewardModelSettings = field(default_factory=RewardModelSettings)


@dataclass(frozen=True, slots=True)
class Moment:
    """After a round: what its duels were like, and how good the reward model has become on held-out prompts.

    `queries`: paid so far; `duel_regret`, `clash_rate`: of the round's duels, a clash being a duel of the answer with
    itself; `simple_regret`, `win_rate`: of the answer that the members' mean ranks first, the latter against each other
    candidate, a tie being half a win; `pair_accuracy`: share of pairs of unequal reward that the mean ranks right.
    """

    queries: int
    duel_regret: float
    clash_rate: float
    simple_regret: float
    win_rate: float
    pair_accuracy: float


@dataclass(frozen=True, slots=True)
class Play:
    """`moments`: the first one before anything was learned, then one a round."""

    strategy: str
    seed: int
    moments: tuple[Moment, ...]

    @property
    def spent(self) -> int:
        """Queries paid in all."""
        return self.moments[-1].queries


def play(world: World, strategy: str, rules: Rules, seed: int) -> Play:
    """Play rounds until the budget is spent, or `PATIENCE` is at an end."""
    held_out = world.held_out()
    player = _begin_play(held_out.features.shape[2], rules, seed)
    moments = [Moment(0, nan, nan, *_measure_moment(player, held_out, rules))]
    for round_ in range(PATIENCE * ceil(rules.queries / rules.prompts)):
        contexts = world.prompts(round_, rules.prompts)
        player, regret, clash_rate = _play_round(player, contexts, strategy, rules, derive(seed, "round", round_))
        moments.append(Moment(player.queries, regret, clash_rate, *_measure_moment(player, held_out, rules)))
        if player.queries >= rules.queries:
            break
    return Play(strategy, seed, tuple(moments))


@dataclass(frozen=True, slots=True)
class _Player:
    """What a player has between two rounds."""

    ensemble: Ensemble
    replay: Replay
    queries: int


def _begin_play(features: int, rules: Rules, seed: int) -> _Player:
    return _Player(start_ensemble(rules.reward_model, features, derive(seed, "ensemble")), Replay.empty(features), 0)


def _play_round(
    player: _Player, contexts: Contexts, strategy: str, rules: Rules, seed: int
) -> tuple[_Player, float, float]:
    """Duel, ask, learn; returns the player after it, and the duels' regret and clash rate."""
    values = predicted(player.ensemble, contexts, rules)
    pairs, kept = pick_pairs(strategy, values, contexts.alike, rules.law, derive(seed, "duels"))
    clash = find_clashes(contexts.alike, pairs)
    asked = affordable(kept if rules.law == "oat" else kept & ~clash, rules.queries - player.queries)
    queries = player.queries + int(asked.sum())
    answers = labelled(contexts, pairs, asked, ~clash, rules.temperature, derive(seed, "oracle"))
    replay = player.replay.extended(answers, rules.reward_model.r_buffer_maxlen)
    ensemble, _ = fit_ensemble(player.ensemble, replay, rules.reward_model, queries, derive(seed, "batches"))
    regret = float(duel_regret(contexts.rewards, pairs).mean())
    return _Player(ensemble, replay, queries), regret, float(clash.mean())


def _measure_moment(player: _Player, held_out: Contexts, rules: Rules) -> tuple[float, float, float]:
    return measure_held_out(held_out.rewards, predicted(player.ensemble, held_out, rules))


def predicted(ensemble: Ensemble, contexts: Contexts, rules: Rules) -> Tensor:
    """Return every member's reward of every candidate, (E, M, N)."""
    with torch.inference_mode():
        return compute_rewards(ensemble.weights, torch.from_numpy(contexts.features), rules.reward_model.rm_act_fn)


def affordable(wanted: Flags, left: int) -> Flags:
    """Return the first `left` of the wanted duels, (M,)."""
    return wanted & (wanted.cumsum() <= left)


def labelled(contexts: Contexts, pairs: Indices, asked: Flags, differ: Flags, temperature: float, seed: int) -> Replay:
    """Ask the oracle about the duels that were `asked` for; clashes among them are kept with their mask off."""
    values = np.take_along_axis(contexts.rewards, pairs, axis=1)
    # The coins belong to the prompts, so that the answers to two strategies differ only where their duels do.
    first_wins = np.random.default_rng(seed).random(len(pairs)) < win_probability(values, temperature)
    winners = np.where(first_wins[:, None], pairs, pairs[:, ::-1])
    chosen, rejected = (contexts.features[np.arange(len(pairs)), winners[:, side]][asked] for side in (0, 1))
    return Replay(torch.from_numpy(chosen), torch.from_numpy(rejected), torch.from_numpy(differ[asked]))


def win_probability(values: Floats, temperature: float) -> Floats:
    """Return P(first wins), (M,), from the rewards of a duel, (M, 2): Bradley and Terry; at 0, who is better."""
    margin = values[:, 0] - values[:, 1]
    logits = margin / temperature if temperature else np.where(margin == 0, 0.0, np.copysign(inf, margin))
    probability: Floats = (1 + np.tanh(logits / 2)) / 2
    return probability
