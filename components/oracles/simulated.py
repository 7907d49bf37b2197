"""An oracle whose reward is known: it answers by the Bradley-Terry model, and reports the rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..records.records import Duel
from .bradley_terry import win_probability
from .known_reward import open_reward
from .oracle import Answer, Circumstances

if TYPE_CHECKING:
    from .oracle import Reward
    from .settings import SimulatedSettings


class SimulatedOracle:
    """P(first wins) = sigmoid((reward of the first - reward of the second) / temperature)."""

    paid = False
    spending = None

    def __init__(self, reward: str | Reward, temperature: float):
        """Open the reward of a name, or take a function of prompt and response."""
        named = open_reward(reward) if isinstance(reward, str) else (f"{reward.__module__}.{reward.__name__}", reward)
        name, self.known_reward = named
        self._temperature = temperature
        self.identity = f"simulated/{name}/T={temperature:g}"

    def check_ready(self) -> None:
        """Do nothing: an oracle that could be opened can answer."""

    def compare_duels(self, duels: Sequence[Duel]) -> list[Answer]:
        """Score both responses of each duel."""
        return [self._compare_rewards(duel) for duel in duels]

    def _compare_rewards(self, duel: Duel) -> Answer:
        first, second = (self.known_reward(duel.prompt, response) for response in (duel.first, duel.second))
        return Answer(win_probability(first, second, self._temperature), first, second)


def open_simulated(settings: SimulatedSettings, circumstances: Circumstances) -> SimulatedOracle:
    """Open the oracle with the reward that the settings name."""
    return SimulatedOracle(settings.reward, settings.reward_temperature)
