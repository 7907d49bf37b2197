"""The learning rate over the whole experiment: pure functions of the optimisation step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, cos, pi
from typing import Literal

POLYNOMIAL_END = 1e-7
Leftover = Literal["spread", "own_step"]


def cosine_rate(step: int, total: float, warmup: int, peak: float, floor_ratio: float) -> float:
    """Return the rate at a step: linear warm-up from 0, then a cosine from `peak` down to ``floor_ratio * peak``.

    As transformers' ``cosine_with_min_lr``; from `total` on, the rate stays at its floor.
    """
    if step < warmup:
        return peak * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * (floor_ratio + (1 - floor_ratio) * (1 + cos(pi * progress)) / 2)


def polynomial_rate(step: int, total: float, warmup: int, peak: float, floor_ratio: float) -> float:
    """Return the rate at a step: linear warm-up from 0, then a line from `peak` down to POLYNOMIAL_END.

    As transformers' ``polynomial`` with its default power and end; `floor_ratio` is not used.
    """
    if step < warmup:
        return peak * step / warmup
    end = min(POLYNOMIAL_END, peak)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return (peak - end) * (1 - progress) + end


def constant_rate(step: int, total: float, warmup: int, peak: float, floor_ratio: float) -> float:
    """Return `peak` at every step: transformers' ``constant`` has no warm-up."""
    return peak


SCHEDULES: dict[str, Callable[[int, float, int, float, float], float]] = {
    "cosine_with_min_lr": cosine_rate,
    "polynomial": polynomial_rate,
    "constant": constant_rate,
}


def warmup_steps(total: float, ratio: float) -> int:
    """Return the number of steps in which the rate rises."""
    return ceil(ratio * total)


def count_steps(pairs: int, batch_size: int, leftover: Leftover) -> int:
    """Return the number of optimisation steps in one pass over the pairs.

    Args:
        pairs: How many pairs there are.
        batch_size: Pairs in one step.
        leftover: "spread" takes the nearest number of equal steps; "own_step" adds a smaller one for what is left over.
    """
    if leftover == "own_step" or not pairs:
        return ceil(pairs / batch_size)
    return max(1, (2 * pairs + batch_size) // (2 * batch_size))


def total_steps(
    buffer_sizes: Sequence[int],
    max_epochs: int,
    train_batch_size: int,
    max_sgd_steps: int | None,
    leftover: Leftover = "spread",
) -> int:
    """Return the optimisation steps of an experiment whose rounds learn from so many preferences each, no clash."""
    steps = (max_epochs * count_steps(size, train_batch_size, leftover) for size in buffer_sizes)
    return sum(made if max_sgd_steps is None else min(made, max_sgd_steps) for made in steps)


def rows_of_rounds(max_queries: int, duels: int, rounds: int) -> list[int]:
    """Return how many preferences each round of an experiment brings that spends its whole budget.

    `duels`: most of one round. Where there are more `rounds` than they need, some pairs cost no query: all are full.
    """
    if rounds > ceil(max_queries / duels):
        return [duels] * rounds
    return [duels] * (rounds - 1) + [max_queries - (rounds - 1) * duels]
