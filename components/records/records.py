"""The records of a round, in the order in which they come to be.

A record's fields are its Parquet columns: ``str``, ``int``, ``float``, ``bool`` and tuples of these; ``| None`` makes
a column nullable, and a table from before there was such a column reads as None. Records hold facts of the experiment
only (no times, no run names), so that the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Side = Literal["first", "second"]

CHOSEN, REJECTED = 0, 1
"""Numbers of the candidates that a preference set gives."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a prompt set. `reference` is the data set's own answer (`output_key`), where it has one.

    `chosen` and `rejected` are the better and the worse answer of a preference set, from which is learned offline.
    """

    prompt_id: str
    text: str
    reference: str | None = None
    chosen: str | None = None
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One response drawn for a prompt. `tokens` end with the end-of-sequence token if it was sampled.

    Of a preference set, number CHOSEN is the better answer and number REJECTED the worse one.
    """

    prompt_id: str
    candidate: int
    response: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Duel:
    """Two candidates of one prompt that compete. A clash is a duel of equal texts: nobody is asked about it."""

    duel_id: str
    prompt_id: str
    prompt: str
    first: str
    second: str
    first_candidate: int
    second_candidate: int
    clash: bool


@dataclass(frozen=True, slots=True)
class Preference:
    """What the oracle said of a duel.

    `first_wins`: its probability that the first response wins; `chosen`: the label drawn from it. Both are None for
    a clash, which costs no query. The rewards are None where the oracle knows none.
    """

    duel_id: str
    prompt_id: str
    clash: bool
    first_wins: float | None
    chosen: str | None
    first_reward: float | None
    second_reward: float | None
    oracle: str


@dataclass(frozen=True, slots=True)
class ReferenceScore:
    """Log-probability of each token of a pair's two completions under the reference of the loss."""

    pair_id: str
    chosen: tuple[float, ...]
    rejected: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The oracle's judgement of one held-out answer of the policy against the opponent's."""

    prompt_id: str
    prompt: str
    response: str
    opponent_response: str
    policy_wins: float
    response_tokens: int
    opponent_tokens: int
    reward: float | None
    opponent_reward: float | None


def duel_id(prompt: str, first: str, second: str) -> str:
    """Name a duel by its content: the same question has the same name in every run."""
    digest = hashlib.sha256()
    for text in (prompt, first, second):
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()[:24]
