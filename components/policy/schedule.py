"""The learning rate over the whole experiment: pure functions of the optimisation step."""

from __future__ import annotations

from math import ceil, cos, pi


def cosine_with_floor(step: int, total: float, warmup: int, peak: float, floor_ratio: float) -> float:
    """Return the rate at a step: linear warm-up from 0, then a cosine from `peak` down to ``floor_ratio * peak``.

    The law is transformers' ``cosine_with_min_lr``; from `total` on, the rate stays at its floor.
    """
    if step < warmup:
        return peak * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (floor_ratio + (1 - floor_ratio) * (1 + cos(pi * progress)) / 2)


def warmup_steps(total: int, ratio: float) -> int:
    """Return in how many steps the rate rises."""
    return ceil(ratio * total)


def total_steps(max_queries: int, rollout_batch_size: int, max_epochs: int, train_batch_size: int) -> int:
    """Return the optimisation steps of an experiment that spends its whole budget, no duel a clash."""
    whole, rest = divmod(max_queries, rollout_batch_size)
    return max_epochs * (whole * ceil(rollout_batch_size / train_batch_size) + ceil(rest / train_batch_size))
