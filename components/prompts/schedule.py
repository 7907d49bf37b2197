"""Which prompts in which round: a seeded order over epochs, as a pure function of the round."""

from __future__ import annotations

import random

from ..seeds import derive


def prompts_of_round(count: int, round_: int, size: int, seed: int) -> list[int]:
    """Return the indices of the `size` prompts of a round, out of a set of `count`.

    The rounds walk through one endless row of epochs, each a permutation of the set: nothing is dropped at an
    epoch's end, a round may span two. No prompt comes twice in one round, unless the set is smaller than the round.
    """
    begin, end = round_ * size, (round_ + 1) * size
    indices: list[int] = []
    tail: list[int] = []
    for epoch in range((end - 1) // count + 1):
        order = _permute_prompts(count, epoch, seed)
        if count >= size:
            order = _keep_apart(order, tail, -(epoch * count) % size)
            tail = order[count - (epoch + 1) * count % size :]
        start = epoch * count
        indices += order[max(begin - start, 0) : max(end - start, 0)]
    return indices


def _permute_prompts(count: int, epoch: int, seed: int) -> list[int]:
    # random() is the one method whose numbers Python promises to keep from version to version.
    source = random.Random(derive(seed, "epoch", epoch))
    keys = [source.random() for _ in range(count)]
    return sorted(range(count), key=lambda index: (keys[index], index))


def _keep_apart(order: list[int], tail: list[int], head: int) -> list[int]:
    """Begin an epoch, for its first `head` places, with what the last one's `tail` has not put into the same round."""
    taken = set(tail)
    first = [index for index in order if index not in taken][:head]
    placed = set(first)
    return first + [index for index in order if index not in placed]
