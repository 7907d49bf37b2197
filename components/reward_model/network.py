"""The ensemble: E perceptrons with two hidden layers each, which map features to a reward.

E members, D features, H hidden units, K answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import silu

Weights = dict[str, Tensor]
"""Each layer's `weight`, (E, in, out), and `bias`, (E, out), of all members."""

LAYERS = ("hidden_1", "hidden_2", "out")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "swish": silu}


def initial_weights(members: int, features: int, hidden: int, seed: int) -> Weights:
    """Draw weights from N(0, 1 / (2 sqrt(fan in))), different ones for each member; biases are zero.

    Oat's code means to truncate the distribution at two standard deviations, but never uses the truncated values.
    """
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for layer, (width_in, width_out) in zip(LAYERS, [(features, hidden), (hidden, hidden), (hidden, 1)], strict=True):
        drawn = torch.randn(members, width_in, width_out, generator=generator)
        weights[f"{layer}.weight"] = drawn / (2 * math.sqrt(width_in))
        weights[f"{layer}.bias"] = torch.zeros(members, width_out)
    return weights


def compute_rewards(weights: Weights, features: Tensor, activation: Literal["relu", "swish"]) -> Tensor:
    """Return each member's reward of each answer, (E, ...), from the answers' features, (..., D)."""
    members = len(weights["out.bias"])
    act = ACTIVATIONS[activation]
    flat = features.reshape(-1, features.shape[-1]).expand(members, -1, -1)
    hidden = act(_apply_layer(weights, "hidden_2", act(_apply_layer(weights, "hidden_1", flat))))
    return _apply_layer(weights, "out", hidden).reshape(members, *features.shape[:-1])


def _apply_layer(weights: Weights, layer: str, inputs: Tensor) -> Tensor:
    """Map inputs, (E, K, in), to outputs, (E, K, out)."""
    return torch.baddbmm(weights[f"{layer}.bias"].unsqueeze(1), inputs, weights[f"{layer}.weight"])
