"""Real candidates with known rewards, in one file.  P prompts, N candidates each, D features.

A pool is a safetensors file with `features` (P, N, D) and `rewards` (P, N), both float32, and where they come from
under `source` in its metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import RefusedInput

FEWEST_PROMPTS = 10
"""Prompts of a pool: a fifth of them is held out."""
_FORMAT = "a pool has features (prompts, candidates, features) and rewards (prompts, candidates), both float32"


@dataclass(frozen=True, slots=True)
class Pool:
    """features: (P, N, D); rewards: (P, N); source: what they are, in words."""

    features: npt.NDArray[np.float32]
    rewards: npt.NDArray[np.float32]
    source: str


def read_pool(path: Path) -> Pool:
    """Read and check a pool; `RefusedInput` says what is wrong with it."""
    if not path.is_file():
        raise RefusedInput(f"pool={str(path)!r}: no such file; {_FORMAT}, in a safetensors file")
    try:
        with safe_open(path, framework="numpy") as file:
            # A file of safetensors is no mapping: it can only be walked by its keys.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            source = (file.metadata() or {}).get("source", "")
    except (SafetensorError, TypeError, AttributeError) as error:
        raise RefusedInput(f"pool={str(path)!r}: not readable as safetensors ({error}); write it again") from None
    for problem in _find_problems(tensors, source):
        raise RefusedInput(f"pool={str(path)!r}: {problem}")
    return Pool(tensors["features"], tensors["rewards"], source)


def pool_to_bytes(pool: Pool) -> bytes:
    """Return a pool as a safetensors file."""
    data: bytes = save({"features": pool.features, "rewards": pool.rewards}, {"source": pool.source})
    return data


def _find_problems(tensors: dict[str, npt.NDArray[np.generic]], source: str) -> Iterator[str]:
    """Tell what is wrong, gravest first; what follows a problem may rely on its absence."""
    missing = sorted({"features", "rewards"} - set(tensors))
    if missing:
        yield f"it has no {' and no '.join(missing)} (found: {', '.join(sorted(tensors)) or 'nothing'}); {_FORMAT}"
    features, rewards = tensors["features"], tensors["rewards"]
    for name, values in (("features", features), ("rewards", rewards)):
        if values.dtype != np.float32:
            yield f"{name} are {values.dtype}, expected float32"
    if features.ndim != 3 or rewards.ndim != 2 or features.shape[:2] != rewards.shape:
        yield f"features have shape {features.shape} and rewards {rewards.shape}; {_FORMAT}"
    prompts, candidates, width = features.shape
    if prompts < FEWEST_PROMPTS or candidates < 2 or width < 1:
        yield (
            f"{prompts} prompts, {candidates} candidates, {width} features; "
            f"a simulation needs at least {FEWEST_PROMPTS}, 2 and 1"
        )
    for name, values in (("features", features), ("rewards", rewards)):
        bad = np.argwhere(~np.isfinite(values.astype(np.float32)))
        if len(bad):
            place = ", ".join(map(str, bad[0]))
            yield f"{name}[{place}] is {values[tuple(bad[0])]}, and {len(bad)} in all are not finite; leave such out"
    if (np.ptp(rewards.astype(np.float32), axis=1) == 0).all():
        yield "all candidates of every prompt have the same reward, so there is nothing to learn"
    if not source:
        yield "its metadata does not say where it comes from; save it with metadata {'source': '...'}"
