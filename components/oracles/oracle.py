"""What an oracle is: whoever says which of two responses wins. The oracles themselves are in `registry.ORACLES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import OracleError
from ..records.records import Duel
from ..store.setting_stores import SettingStores
from .spending import Spending


@dataclass(frozen=True, slots=True)
class Answer:
    """An oracle's answer to one duel.

    Attributes:
        first_wins: Probability that the first response wins; None if the oracle's words cannot be read as one.
        first_reward: Reward of the first response, if the oracle knows it.
        second_reward: Reward of the second response, if the oracle knows it.
        undecided: Whether the oracle says that neither is better; nothing is learned from such a duel.
        orders: Which response was shown first: "given", "swapped", or "both" if the oracle was asked twice; None if
            the order plays no part.
        shown_first_wins: Probability that the response shown first wins, averaged over the orders.
        consistent: Whether both orders have the same winner.
        raw: The oracle's own words.
        requests: How many requests were answered.
        retried: How many requests failed before.
        seconds: From the first question to the last answer.
        input_tokens: Tokens of the questions, if the oracle counts them.
        output_tokens: Tokens of the answers, if the oracle counts them.
        cost: What it cost, in the currency of the price list.
        lost: Whether one part of the question was paid for and answered, and the rest was not. It is not asked again.
        unanswered: True if all its requests failed, but may have been paid all the same. It is asked again.
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
    unanswered: bool | None = None


Reward = Callable[[str, str], float]
"""The reward of a prompt's response."""
Say = Callable[[str], None]
"""Shows one line to the user: why an oracle waits."""


class OracleFailed(OracleError):
    """The oracle failed for good; `answers` has what it answered before, by duel."""

    def __init__(self, message: str, answers: Mapping[str, Answer] | None = None):
        super().__init__(message)
        self.answers: dict[str, Answer] = dict(answers or {})


class SpendingLimit(OracleFailed):
    """The next question was not asked, because it might cost more than what is left to spend."""


class Oracle(Protocol):
    """Says which response of a duel wins."""

    @property
    def identity(self) -> str:
        """Kind, version and parameters: everything that an answer depends on."""
        ...

    @property
    def known_reward(self) -> Reward | None:
        """The reward behind the answers, if it is known and free; regret is measured with it."""
        ...

    @property
    def paid(self) -> bool:
        """Whether each question costs money. A question whose answer was lost is then not asked again."""
        ...

    @property
    def spending(self) -> Spending | None:
        """Its account of costs, with the limit if there is one; None if it has no prices."""
        ...

    def check_ready(self) -> None:
        """Raise `RefusedInput` if it could not answer. Called before an experiment begins; asks nothing that costs."""
        ...

    def compare_duels(self, duels: Sequence[Duel]) -> list[Answer]:
        """Answer each duel, in order. Raises `OracleFailed` with the answers so far; never invents an answer."""
        ...


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an oracle is opened with, apart from its settings.

    Attributes:
        seed: The experiment's seed.
        say: Shows a line to the user when the oracle waits.
        stores: Opens the stores that its settings name, ``s3://bucket/folder``.
    """

    seed: int = 0
    say: Say = field(default=lambda line: print(line, flush=True))
    stores: SettingStores = field(default_factory=SettingStores)


class LoggedOracle:
    """An oracle that appends the id of each duel to a file, one a line, before it answers."""

    def __init__(self, oracle: Oracle, path: str):
        self._oracle, self._path = oracle, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)

    def compare_duels(self, duels: Sequence[Duel]) -> list[Answer]:
        """Log the duels, then ask."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write("".join(f"{duel.duel_id}\n" for duel in duels))
        return self._oracle.compare_duels(duels)
