"""An oracle whose reward is known: it answers by the Bradley-Terry model, and tells the rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from math import exp

from ..records.records import Duel
from .oracle import Answer

Reward = Callable[[str], float]


class SimulatedOracle:
    """P(first wins) = sigmoid((reward of the first - reward of the second) / temperature)."""

    def __init__(self, reward: str, temperature: float):
        name, self._reward = REWARDS[reward]()
        self._temperature = temperature
        self.identity = f"simulated/{name}/T={temperature:g}"

    def known_reward(self, prompt: str, response: str) -> float:
        """Return the reward of a response."""
        return self._reward(response)

    def compare(self, duels: Sequence[Duel]) -> list[Answer]:
        """Score both responses of each duel; the prompt plays no part."""
        return [self._answer(duel.first, duel.second) for duel in duels]

    def _answer(self, first: str, second: str) -> Answer:
        rewards = self._reward(first), self._reward(second)
        return Answer(bradley_terry(*rewards, self._temperature), *rewards)


def bradley_terry(first_reward: float, second_reward: float, temperature: float) -> float:
    """Probability that the first wins; exact at both ends, where a naive sigmoid overflows."""
    margin = (first_reward - second_reward) / temperature
    return 1 / (1 + exp(-margin)) if margin >= 0 else exp(margin) / (1 + exp(margin))


def vader() -> tuple[str, Reward]:
    """Sentiment in [-1, 1]: VADER's compound score (Hutto & Gilbert 2014)."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    score = SentimentIntensityAnalyzer().polarity_scores
    return f"vader-{version('vaderSentiment')}", lambda text: float(score(text)["compound"])


def length() -> tuple[str, Reward]:
    """Number of words over 100."""
    return "length", lambda text: len(text.split()) / 100


# A reward's name in the settings: how to open it. Opening returns its name with version, and the function.
REWARDS: dict[str, Callable[[], tuple[str, Reward]]] = {"vader": vader, "length": length}
