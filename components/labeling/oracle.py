"""The oracle: who says which of two responses wins. One interface; one file an oracle, named in `ORACLES`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..records.records import Duel
from .settings import LabelingSettings

ORACLE_LOG = "OATFLOW_ORACLE_LOG"


@dataclass(frozen=True, slots=True)
class Answer:
    """The probability that the first response wins, and both rewards where the oracle knows them."""

    first_wins: float
    first_reward: float | None = None
    second_reward: float | None = None


Reward = Callable[[str, str], float]
"""The reward of a prompt's response."""


class Oracle(Protocol):
    """Answers questions that cost money. `identity` names everything that an answer depends on."""

    @property
    def identity(self) -> str:
        """Who this is: kind, version and parameters."""
        ...

    @property
    def known_reward(self) -> Reward | None:
        """The reward that the answers follow from, where it is known and costs nothing: regret is measured with it."""
        ...

    def compare(self, duels: Sequence[Duel]) -> list[Answer]:
        """Answer each duel, in order. Raises `OracleError`; never invents an answer."""
        ...


def open_oracle(settings: LabelingSettings) -> Oracle:
    """Open the oracle that the settings name.

    Where OATFLOW_ORACLE_LOG names a file, every duel is noted there before it is asked.
    """
    oracle = ORACLES[settings.preference_oracle](settings)
    return LoggedOracle(oracle, path) if (path := os.environ.get(ORACLE_LOG)) else oracle


def _open_simulated(settings: LabelingSettings) -> Oracle:
    from .simulated import SimulatedOracle

    return SimulatedOracle(settings.reward, settings.reward_temperature)


ORACLES: dict[str, Callable[[LabelingSettings], Oracle]] = {"simulated": _open_simulated}


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

    def compare(self, duels: Sequence[Duel]) -> list[Answer]:
        """Note the duels, then ask."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(f"{duel.duel_id}\n" for duel in duels))
        return self.oracle.compare(duels)
