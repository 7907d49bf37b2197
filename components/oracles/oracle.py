"""What an oracle is: whoever says which of two responses wins. The oracles themselves are in `registry.ORACLES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import OracleError
from ..records.records import Duel
from ..store.setting_stores import SettingStores
from .purse import Purse


@dataclass(frozen=True, slots=True)
class Answer:
    """What an oracle said of a duel.

    `first_wins`: the probability that the first response wins, or None where what was said cannot be read as one; then
    `raw` holds what was said. `undecided`: the oracle says that neither is better, which teaches nothing.
    `first_reward`, `second_reward`: both rewards, where the oracle knows them. `orders`: which of the two was shown
    first: "given", "swapped", or "both" where it was asked twice; None where order plays no part. `shown_first_wins`:
    mean probability over these orders that what was shown first wins, and `consistent`: whether both orders have the
    same winner. `requests`: how many were answered; `retried`: how many failed on the way. `cost` in the currency of
    the price list. `seconds`: from the first question to the last answer. `lost`: part of the question was paid for and
    answered, the rest was not; it is not asked again.
    """

    first_wins: float | None
    first_reward: float | None = None
    second_reward: float | None = None
    undecided: bool = False
    orders: str | None = None
    shown_first_wins: float | None = None
    consistent: bool | None = None
    raw: str = ""
    requests: int = 0
    retried: int = 0
    seconds: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    lost: bool = False


Reward = Callable[[str, str], float]
"""The reward of a prompt's response."""
Say = Callable[[str], None]
"""Told one line for whoever watches: why an oracle waits."""


class OracleFailed(OracleError):
    """The oracle gave up; `answers`, by duel, are those that it had given before."""

    def __init__(self, message: str, answers: Mapping[str, Answer] | None = None):
        super().__init__(message)
        self.answers: dict[str, Answer] = dict(answers or {})


class SpendingLimit(OracleFailed):
    """The next question might cost more than may still be spent, so it was not asked."""


class Oracle(Protocol):
    """Answers questions that cost something. `identity` names everything that an answer depends on.

    `paid`: whether asking again what was perhaps answered costs money; then a question whose answer got lost stays
    unanswered. `purse`: what may be spent, where there is a limit.
    """

    @property
    def identity(self) -> str:
        """Who this is: kind, version and parameters."""
        ...

    @property
    def known_reward(self) -> Reward | None:
        """The reward that the answers follow from, where it is known and costs nothing: regret is measured with it."""
        ...

    @property
    def paid(self) -> bool:
        """Whether each question costs money."""
        ...

    @property
    def purse(self) -> Purse | None:
        """What may be spent."""
        ...

    def check(self) -> None:
        """See that it can answer, before an experiment begins; asks nothing that costs. Raises `RefusedInput`."""
        ...

    def compare(self, duels: Sequence[Duel]) -> list[Answer]:
        """Answer each duel, in order. Raises `OracleFailed` with the answers so far; never invents an answer."""
        ...


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an oracle is opened with besides its settings.

    `seed`: the experiment's. `say`: takes a line for the log when the oracle waits. `stores`: opens what its settings
    name, ``s3://bucket/folder``.
    """

    seed: int = 0
    say: Say = field(default=lambda line: print(line, flush=True))
    stores: SettingStores = field(default_factory=SettingStores)


@dataclass(frozen=True)
class LoggedOracle:
    """An oracle that appends the name of each duel to a file, one a line, before it is asked."""

    oracle: Oracle
    path: str

    @property
    def identity(self) -> str:
        """The oracle's own: a log changes no answer."""
        return self.oracle.identity

    @property
    def known_reward(self) -> Reward | None:
        """The oracle's own, which is not a question to it."""
        return self.oracle.known_reward

    @property
    def paid(self) -> bool:
        """The oracle's own."""
        return self.oracle.paid

    @property
    def purse(self) -> Purse | None:
        """The oracle's own."""
        return self.oracle.purse

    def check(self) -> None:
        """Check the oracle."""
        self.oracle.check()

    def compare(self, duels: Sequence[Duel]) -> list[Answer]:
        """Note the duels, then ask."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(f"{duel.duel_id}\n" for duel in duels))
        return self.oracle.compare(duels)
