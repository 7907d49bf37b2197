"""Contextual dueling bandits whose reward is known.  M prompts, N candidates, D features, H hidden units.

A world is what a seed makes of it: its reward, the candidates of every round, and the held-out prompts. Strategies that
play in the same world meet the same candidates, as far as they get.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..seeds import derive
from .pool import Pool

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Reward = Callable[[Floats], Floats]
"""(..., D) features -> (...) rewards."""

HELD_OUT = 200
"""Held-out prompts of a world; of a pool, a fifth of its prompts, if that is less."""
SPREAD = 1.5
"""Standard deviation of the rewards of Gaussian candidates, in the unit of the oracle's log-odds; Oat's toy."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """features: (M, N, D) float32; rewards: (M, N); alike: (M, N), each candidate's first equal one."""

    features: npt.NDArray[np.float32]
    rewards: Floats
    alike: Indices

    def __len__(self) -> int:
        return len(self.rewards)


class World(Protocol):
    """Where strategies play."""

    def prompts(self, round_: int, count: int) -> Contexts:
        """Return the prompts of a round with their candidates."""

    def held_out(self) -> Contexts:
        """Return the prompts that nobody ever duels on."""


@dataclass(frozen=True, slots=True)
class LinearReward:
    """r(x) = w . x; weights: (D,)."""

    weights: Floats

    def __call__(self, features: Floats) -> Floats:
        """Return the rewards of features."""
        rewards: Floats = features @ self.weights
        return rewards


@dataclass(frozen=True, slots=True)
class NeuralReward:
    """r(x) = v . tanh(W x), which no linear model can be; hidden: (D, H), out: (H,)."""

    hidden: Floats
    out: Floats

    def __call__(self, features: Floats) -> Floats:
        """Return the rewards of features."""
        rewards: Floats = np.tanh(features @ self.hidden) @ self.out
        return rewards


@dataclass(frozen=True, slots=True)
class GaussianWorld:
    """Fresh candidates with standard normal features in every round."""

    reward: Reward
    candidates: int
    features: int
    seed: int
    held_out_seed: int

    def prompts(self, round_: int, count: int) -> Contexts:
        """Return the prompts of a round with their candidates."""
        return self._drawn(count, derive(self.seed, "candidates", round_))

    def held_out(self) -> Contexts:
        """Return the prompts that nobody ever duels on."""
        return self._drawn(HELD_OUT, self.held_out_seed)

    def _drawn(self, count: int, seed: int) -> Contexts:
        features = np.random.default_rng(seed).standard_normal((count, self.candidates, self.features))
        alike = np.tile(np.arange(self.candidates), (count, 1))
        return Contexts(features.astype(np.float32), self.reward(features), alike)


def gaussian_world(kind: Literal["linear", "neural"], candidates: int, features: int, seed: int) -> GaussianWorld:
    """Return the world of a seed, with a reward of its own."""
    draw = linear_reward if kind == "linear" else neural_reward
    reward: Reward = draw(features, derive(seed, "reward"))
    return GaussianWorld(reward, candidates, features, derive(seed, "world"), derive(seed, "held out"))


def linear_reward(features: int, seed: int) -> LinearReward:
    """Draw a direction; its length is `SPREAD`."""
    drawn = np.random.default_rng(seed).standard_normal(features)
    return LinearReward(SPREAD * drawn / np.linalg.norm(drawn))


def neural_reward(features: int, seed: int, hidden: int = 32) -> NeuralReward:
    """Draw a net of two layers, scaled so that rewards of Gaussian features spread by `SPREAD`."""
    source = np.random.default_rng(seed)
    net = NeuralReward(
        source.standard_normal((features, hidden)) * 2 / np.sqrt(features), source.standard_normal(hidden)
    )
    spread = net(source.standard_normal((4096, features))).std()
    return NeuralReward(net.hidden, net.out * SPREAD / spread)


@dataclass(frozen=True, slots=True)
class PoolWorld:
    """Real candidates, always the same: a fifth of the prompts held out by seed, the others in epochs by seed."""

    pool: Pool
    seed: int

    def prompts(self, round_: int, count: int) -> Contexts:
        """Return the prompts of a round; each comes again only after all the others."""
        trained = self._order()[self._held_out :]
        places = range(round_ * count, (round_ + 1) * count)
        epochs = {place // len(trained) for place in places}
        orders = {epoch: self._source("epoch", epoch).permutation(trained) for epoch in epochs}
        return self._contexts(np.array([orders[place // len(trained)][place % len(trained)] for place in places]))

    def held_out(self) -> Contexts:
        """Return the prompts that nobody ever duels on."""
        return self._contexts(self._order()[: self._held_out])

    @property
    def _held_out(self) -> int:
        return min(HELD_OUT, len(self.pool.rewards) // 5)

    def _order(self) -> Indices:
        return self._source("held out").permutation(len(self.pool.rewards))

    def _contexts(self, prompts: Indices) -> Contexts:
        features, rewards = self.pool.features[prompts], self.pool.rewards[prompts].astype(np.float64)
        return Contexts(features, rewards, np.stack([find_alike(candidates) for candidates in features]))

    def _source(self, *purpose: int | str) -> np.random.Generator:
        return np.random.default_rng(derive(self.seed, *purpose))


def find_alike(features: npt.NDArray[np.float32]) -> Indices:
    """Return each candidate's first equal one, (N,); features: (N, D). The same text has the same features."""
    _, first, group = np.unique(features, axis=0, return_index=True, return_inverse=True)
    return first[group.reshape(-1)].astype(np.int64)
