"""Ensembles, buffers and features as bytes: safetensors, the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor

from .fitting import Ensemble
from .network import Weights
from .replay import Replay

_PARTS = ("weights", "anchor", "first_moment", "second_moment")


def to_bytes(ensemble: Ensemble) -> bytes:
    """Return everything that the next fit depends on, except the duels."""
    parts = {f"{part}.{name}": tensor for part in _PARTS for name, tensor in getattr(ensemble, part).items()}
    return _write_tensors(parts | {"steps": torch.tensor(ensemble.steps)})


def from_bytes(data: bytes) -> Ensemble:
    """Return the ensemble that `to_bytes` was given."""
    tensors = load(data)
    weights, anchor, first, second = (_take_part(tensors, part) for part in _PARTS)
    return Ensemble(weights, anchor, first, second, int(tensors["steps"]))


def replay_to_bytes(replay: Replay) -> bytes:
    """Return the duels of a buffer, in their order."""
    return _write_tensors({"chosen": replay.chosen, "rejected": replay.rejected, "kept": replay.kept})


def replay_from_bytes(data: bytes) -> Replay:
    """Return the duels that `replay_to_bytes` was given."""
    return Replay(**load(data))


def features_to_bytes(features: Tensor) -> bytes:
    """Return the features of answers, (K, D), in their order."""
    return _write_tensors({"features": features})


def features_from_bytes(data: bytes) -> Tensor:
    """Return the features that `features_to_bytes` was given, (K, D)."""
    return load(data)["features"]


def _write_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    # safetensors refuses views of larger tensors, and one tensor under two names. Its metadata has no fixed order, so
    # none is written.
    return bytes(save({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}))


def _take_part(tensors: Mapping[str, Tensor], part: str) -> Weights:
    return {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}
