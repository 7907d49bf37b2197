"""What a round needs to know of all rounds before it, so that its cost does not grow with their number.

Closing a round writes the running state that includes it, made from that of the round before, and the round's record
names it by its digest. It holds nothing that is not in the rounds: an experiment that began before there was a running
state gets one when its next round closes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..store.transfer import Placed
from .done import Done

RUNNING = "running.json"
KEPT_STATES = 2
"""Running states of so many last rounds keep their large parts; any state can be made again from the rounds."""


@dataclass(frozen=True, slots=True)
class Running:
    """The running state after a round.

    Attributes:
        round: The last round that it includes.
        records: Digests of the records of the rounds before that one, oldest first.
        cost: What the oracle has cost in all rounds, for labels and for evaluation.
        answers: Where the oracle's answers of all rounds are: one table for each that has any, by its name.
        marks: Where the marks of all rounds are, one line of JSON a round: no inputs and outputs.
    """

    round: int
    records: tuple[str, ...]
    cost: float
    answers: Mapping[str, Placed]
    marks: Placed

    @property
    def parts(self) -> tuple[Placed, ...]:
        """The objects beside it."""
        return (*self.answers.values(), self.marks)

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Running:
        """Read a state back."""
        answers = {table: Placed(**placed) for table, placed in body["answers"].items()}
        marks, records = Placed(**body["marks"]), tuple(body["records"])
        return cls(**(body | {"records": records, "answers": answers, "marks": marks}))


@dataclass(frozen=True, slots=True)
class StepMark:
    """What a finished step counted and measured, and when it worked; see `Done`."""

    counts: Mapping[str, int]
    facts: Mapping[str, Any]
    timings: Mapping[str, float]
    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class RoundMarks:
    """The marks of a closed round by step, and the digest of the policy after it."""

    round: int
    policy: str
    steps: Mapping[str, StepMark]

    def to_json(self) -> dict[str, Any]:
        """Return the marks as a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> RoundMarks:
        """Read the marks back."""
        return cls(**(body | {"steps": {step: StepMark(**mark) for step, mark in body["steps"].items()}}))


def shorten_mark(done: Done) -> StepMark:
    """Return a step's mark without its lists of inputs and outputs."""
    return StepMark(done.counts, done.facts, done.timings, done.started, done.finished)
