"""Fits the ensemble: a few Adam steps in each round, on duels of all rounds.  E members, B duels, D features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..seeds import derive
from .losses import anchor_penalty, anchor_strength, duel_loss
from .network import Weights, compute_rewards, initial_weights
from .replay import Replay
from .settings import RewardModelSettings


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Everything that the next fit depends on, except the duels.

    Attributes:
        weights: The members' weights.
        anchor: Their initial weights.
        first_moment: Adam's running mean of the gradient.
        second_moment: Adam's running mean of its square.
        steps: How many steps Adam has made.
    """

    weights: Weights
    anchor: Weights
    first_moment: Weights
    second_moment: Weights
    steps: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The last step of a fit, measured before the weights moved, as Oat logs it.

    Attributes:
        loss: The loss of the duels.
        penalty: The anchor's part of what is minimised, `strength` included.
        strength: Weight of the anchor's part.
        chosen_reward: Mean reward of the chosen answers, over members and duels, excluded ones included.
        rejected_reward: The same of the rejected answers.
        steps: How many steps Adam has made since the experiment began.
    """

    loss: float
    penalty: float
    strength: float
    chosen_reward: float
    rejected_reward: float
    steps: int


def start_ensemble(settings: RewardModelSettings, features: int, seed: int) -> Ensemble:
    """Return an untrained ensemble; equal seeds make equal ones."""
    weights = initial_weights(settings.num_ensemble, features, settings.rm_hidden_dim, seed)
    return Ensemble(weights, _clone_weights(weights), _zero_weights(weights), _zero_weights(weights), 0)


def fit_ensemble(
    ensemble: Ensemble, replay: Replay, settings: RewardModelSettings, queries: int, seed: int
) -> tuple[Ensemble, Fit | None]:
    """Return the ensemble after some steps on the buffer, and the last of these; None where no step was taken.

    Args:
        ensemble: The ensemble before; it is not changed.
        replay: The buffer.
        settings: How to fit.
        queries: How many queries the experiment has made.
        seed: Seed of the batches.
    """
    if not _may_learn(replay, settings, queries):
        return ensemble, None
    weights = {name: tensor.requires_grad_() for name, tensor in _clone_weights(ensemble.weights).items()}
    optimizer = _open_adam(weights, ensemble, settings)
    strength = anchor_strength(settings, queries)
    for number in range(settings.rm_sgd_steps):
        batch = replay.draw_batch(settings.rm_batch_size, derive(seed, number))
        last = _take_step(optimizer, weights, ensemble.anchor, batch, settings, strength)
    after = _make_ensemble(ensemble, weights, optimizer, settings.rm_sgd_steps)
    loss, penalty, chosen, rejected = (tensor.item() for tensor in last)
    return after, Fit(loss, penalty, strength, chosen, rejected, after.steps)


def _may_learn(replay: Replay, settings: RewardModelSettings, queries: int) -> bool:
    waits = settings.rm_full_batches and len(replay) < settings.rm_batch_size
    is_over = settings.rm_train_budget is not None and queries >= settings.rm_train_budget
    return bool(replay.kept.any()) and not waits and not is_over


def _take_step(
    optimizer: torch.optim.Adam,
    weights: Weights,
    anchor: Weights,
    batch: Replay,
    settings: RewardModelSettings,
    strength: float,
) -> tuple[Tensor, ...]:
    """Take one step; returns loss, penalty, and mean reward of chosen and rejected answers, as they were before it."""
    both = compute_rewards(weights, torch.stack([batch.chosen, batch.rejected]), settings.rm_act_fn)
    chosen, rejected = both.unbind(1)
    loss = duel_loss(chosen, rejected, batch.kept, settings.rm_mask)
    penalty = strength * anchor_penalty(weights, anchor)
    optimizer.zero_grad()
    (loss + penalty).backward()
    optimizer.step()
    return loss, penalty, chosen.mean(), rejected.mean()


def _open_adam(weights: Weights, ensemble: Ensemble, settings: RewardModelSettings) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(weights.values(), lr=settings.rm_lr, weight_decay=settings.rm_wd, fused=True)
    for name, weight in weights.items():
        optimizer.state[weight] = {
            "step": torch.tensor(float(ensemble.steps)),
            "exp_avg": ensemble.first_moment[name].clone(),
            "exp_avg_sq": ensemble.second_moment[name].clone(),
        }
    return optimizer


def _make_ensemble(ensemble: Ensemble, weights: Weights, optimizer: torch.optim.Adam, steps: int) -> Ensemble:
    return replace(
        ensemble,
        weights={name: weight.detach() for name, weight in weights.items()},
        first_moment={name: optimizer.state[weight]["exp_avg"] for name, weight in weights.items()},
        second_moment={name: optimizer.state[weight]["exp_avg_sq"] for name, weight in weights.items()},
        steps=ensemble.steps + steps,
    )


def _clone_weights(weights: Weights) -> Weights:
    return {name: tensor.clone() for name, tensor in weights.items()}


def _zero_weights(weights: Weights) -> Weights:
    return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
