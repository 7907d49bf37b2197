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
MEMBER = "member "
"""Begins the name that stands where an oracle would be named, if a member of the ensemble gave the label."""

CHOSEN, REJECTED = 0, 1
"""Numbers of the candidates that a preference set gives."""
OF_REFERENCE = 1
"""Number of the candidate that the reference draws in XPO; the policy draws the other one."""


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

    Of a preference set, number CHOSEN is the better answer and number REJECTED the worse one. `logprob` and
    `reference_logprob`: log-probability of all its tokens under the policy that answers in its round, and under the
    reference; None where no strategy asks for them.
    """

    prompt_id: str
    candidate: int
    response: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish_reason: str
    logprob: float | None = None
    reference_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Duel:
    """Two candidates of one prompt that compete. A clash is a duel of equal texts: nobody is asked about it.

    What follows `clash` is None where no reward model had a say. `strategy`: what picked the two. `synthetic`: a pair
    of mixed preference learning, proposed by `member` of the ensemble; `member_first_wins`: that member's probability,
    which is its label, or None where the oracle is asked instead. `predicted`: the ensemble's mean probability that the
    first wins, and `uncertainty`: its standard deviation over the members, both before this duel was learned from.
    `recommended`: the candidate whose mean reward is highest.
    """

    duel_id: str
    prompt_id: str
    prompt: str
    first: str
    second: str
    first_candidate: int
    second_candidate: int
    clash: bool
    strategy: str | None = None
    synthetic: bool | None = None
    member: int | None = None
    member_first_wins: float | None = None
    predicted: float | None = None
    uncertainty: float | None = None
    recommended: int | None = None

    @property
    def labelled_by_member(self) -> bool:
        """Whether a member of the ensemble gives the label, and nobody is asked."""
        return self.member_first_wins is not None


@dataclass(frozen=True, slots=True)
class Preference:
    """What the oracle said of a duel.

    `first_wins`: its probability that the first response wins; `chosen`: the label drawn from it. Both are None for
    a clash, which costs no query. The rewards are None where the oracle knows none. `synthetic`: a member of the
    ensemble proposed the pair; unless the settings ask the oracle all the same, it gave the label too. `unreadable`:
    the oracle was asked, and its answer cannot be read, so there is no label either. `undecided`: the oracle says that
    neither is better, which is no label. `orders`: in which order both were shown, "given", "swapped" or "both".
    `lost`: it was asked, but the answer was not kept. Nobody was asked where `oracle` is empty.
    """

    duel_id: str
    prompt_id: str
    clash: bool
    first_wins: float | None
    chosen: str | None
    first_reward: float | None
    second_reward: float | None
    oracle: str
    synthetic: bool | None = None
    unreadable: bool | None = None
    undecided: bool | None = None
    orders: str | None = None
    lost: bool | None = None

    @property
    def is_answer(self) -> bool:
        """Whether the oracle itself gave it: a member's label is none, nor is a duel that was never asked."""
        return bool(self.oracle) and not self.oracle.startswith(MEMBER)


@dataclass(frozen=True, slots=True)
class Receipt:
    """One query: a duel that the oracle was asked about, as it answered, and what that took.

    Written before anything is made of the answer, so that nobody is asked twice. `lost`: it was asked, but the process
    ended before the answer was kept; `cost` is then its share of what the batch may have cost at most. `unanswered`:
    its requests failed, but may have been paid, and it is asked again. Of the other columns, see
    `oracles.oracle.Answer`. The only record that holds times: two runs of the same experiment differ in `seconds`.
    """

    duel_id: str
    prompt_id: str
    oracle: str
    lost: bool
    undecided: bool
    raw: str
    requests: int
    retried: int
    seconds: float
    first_wins: float | None
    first_reward: float | None
    second_reward: float | None
    orders: str | None
    shown_first_wins: float | None
    consistent: bool | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    unanswered: bool | None = None


@dataclass(frozen=True, slots=True)
class KnownReward:
    """The oracle's own reward of a candidate, where it is known: what regret is measured with, never learned from."""

    prompt_id: str
    candidate: int
    reward: float


@dataclass(frozen=True, slots=True)
class ReferenceScore:
    """Log-probability of each token of a pair's two completions under the reference of the loss."""

    pair_id: str
    chosen: tuple[float, ...]
    rejected: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HeldOutAnswer:
    """An answer to a held-out prompt.

    `tokens`: its length. `drawn_tokens`: length of all draws of which this one is the best, or None if nothing was
    generated for it.
    """

    prompt_id: str
    response: str
    tokens: int
    drawn_tokens: int | None = None


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
