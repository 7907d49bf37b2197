"""How the ensemble learns: a few Adam steps in each round, on duels of all rounds.  E members, B duels, D features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..seeds import derive
from .losses import anchor_penalty, anchor_strength, bradley_terry
from .network import Weights, initial_weights, rewards
from .replay import Replay
from .settings import RewardModelSettings


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Everything that the next fit depends on, but for the duels.

    `anchor`: the weights that the members began with; `first_moment`, `second_moment`, `steps`: Adam's.
    """

    weights: Weights
    anchor: Weights
    first_moment: Weights
    second_moment: Weights
    steps: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The last step of a fit, as it was before the weights moved: what Oat logs.

    `loss`: Bradley-Terry's; `penalty`: the anchor's part of what is minimised, `strength` included;
    `chosen_reward`, `rejected_reward`: means over members and duels, kept or not; `steps`: Adam's, since the beginning.
    """

    loss: float
    penalty: float
    strength: float
    chosen_reward: float
    rejected_reward: float
    steps: int


def begin(settings: RewardModelSettings, features: int, seed: int) -> Ensemble:
    """Return an ensemble that has learned nothing; equal seeds make equal ones."""
    weights = initial_weights(settings.num_ensemble, features, settings.rm_hidden_dim, seed)
    return Ensemble(weights, _clones(weights), _zeros(weights), _zeros(weights), 0)


def fit(
    ensemble: Ensemble, replay: Replay, settings: RewardModelSettings, queries: int, seed: int
) -> tuple[Ensemble, Fit | None]:
    """Let the ensemble learn from the buffer; no Fit, and the ensemble as it was, where there is nothing to learn.

    `queries`: how many were asked since the experiment began. What is given is not changed.
    """
    if not _may_learn(replay, settings, queries):
        return ensemble, None
    weights = {name: tensor.requires_grad_() for name, tensor in _clones(ensemble.weights).items()}
    optimizer = _adam(weights, ensemble, settings)
    strength = anchor_strength(settings, queries)
    for number in range(settings.rm_sgd_steps):
        batch = replay.drawn(settings.rm_batch_size, derive(seed, number))
        last = _step(optimizer, weights, ensemble.anchor, batch, settings, strength)
    after = _after(ensemble, weights, optimizer, settings.rm_sgd_steps)
    loss, penalty, chosen, rejected = (tensor.item() for tensor in last)
    return after, Fit(loss, penalty, strength, chosen, rejected, after.steps)


def _may_learn(replay: Replay, settings: RewardModelSettings, queries: int) -> bool:
    waits = settings.rm_full_batches and len(replay) < settings.rm_batch_size
    is_over = settings.rm_train_budget is not None and queries >= settings.rm_train_budget
    return bool(replay.kept.any()) and not waits and not is_over


def _step(
    optimizer: torch.optim.Adam,
    weights: Weights,
    anchor: Weights,
    batch: Replay,
    settings: RewardModelSettings,
    strength: float,
) -> tuple[Tensor, ...]:
    """Move the weights, and return how it was before: loss, penalty, mean reward of the chosen and of the rejected."""
    both = rewards(weights, torch.stack([batch.chosen, batch.rejected]), settings.rm_act_fn)
    chosen, rejected = both.unbind(1)
    loss = bradley_terry(chosen, rejected, batch.kept, settings.rm_mask)
    penalty = strength * anchor_penalty(weights, anchor)
    optimizer.zero_grad()
    (loss + penalty).backward()
    optimizer.step()
    return loss, penalty, chosen.mean(), rejected.mean()


def _adam(weights: Weights, ensemble: Ensemble, settings: RewardModelSettings) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(weights.values(), lr=settings.rm_lr, weight_decay=settings.rm_wd, fused=True)
    for name, weight in weights.items():
        optimizer.state[weight] = {
            "step": torch.tensor(float(ensemble.steps)),
            "exp_avg": ensemble.first_moment[name].clone(),
            "exp_avg_sq": ensemble.second_moment[name].clone(),
        }
    return optimizer


def _after(ensemble: Ensemble, weights: Weights, optimizer: torch.optim.Adam, steps: int) -> Ensemble:
    return replace(
        ensemble,
        weights={name: weight.detach() for name, weight in weights.items()},
        first_moment={name: optimizer.state[weight]["exp_avg"] for name, weight in weights.items()},
        second_moment={name: optimizer.state[weight]["exp_avg_sq"] for name, weight in weights.items()},
        steps=ensemble.steps + steps,
    )


def _clones(weights: Weights) -> Weights:
    return {name: tensor.clone() for name, tensor in weights.items()}


def _zeros(weights: Weights) -> Weights:
    return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
