"""An oracle whose reward is known: it answers by the Bradley-Terry model, and tells the rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from math import exp

from ..records.records import Duel
from .callables import reward_function
from .oracle import Answer, Reward


class SimulatedOracle:
    """P(first wins) = sigmoid((reward of the first - reward of the second) / temperature)."""

    paid = False
    purse = None

    def __init__(self, reward: str, temperature: float):
        name, self.known_reward = REWARDS[reward]() if reward in REWARDS else reward_function(reward)
        self._temperature = temperature
        self.identity = f"simulated/{name}/T={temperature:g}"

    def check(self) -> None:
        """Nothing to check: it could be opened."""

    def compare(self, duels: Sequence[Duel]) -> list[Answer]:
        """Score both responses of each duel."""
        return [self._answer(duel) for duel in duels]

    def _answer(self, duel: Duel) -> Answer:
        rewards = self.known_reward(duel.prompt, duel.first), self.known_reward(duel.prompt, duel.second)
        return Answer(bradley_terry(*rewards, self._temperature), *rewards)


def bradley_terry(first_reward: float, second_reward: float, temperature: float) -> float:
    """Probability that the first wins; exact at both ends, where a naive sigmoid overflows."""
    margin = (first_reward - second_reward) / temperature
    return 1 / (1 + exp(-margin)) if margin >= 0 else exp(margin) / (1 + exp(margin))


def vader() -> tuple[str, Reward]:
    """Sentiment in [-1, 1]: VADER's compound score (Hutto & Gilbert 2014)."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    score = SentimentIntensityAnalyzer().polarity_scores
    return f"vader-{version('vaderSentiment')}", lambda prompt, response: float(score(response)["compound"])


def length() -> tuple[str, Reward]:
    """Number of words over 100."""
    return "length", lambda prompt, response: len(response.split()) / 100


# A reward's name in the settings: how to open it. Opening returns its name with version, and the function.
REWARDS: dict[str, Callable[[], tuple[str, Reward]]] = {"vader": vader, "length": length}
