"""A reward model in the step's own process as the oracle: the response with the better score tends to win."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..records.records import Duel
from .bradley_terry import win_probability
from .local_model import LocalModelOracle
from .oracle import Answer, Circumstances
from .scorer_folder import check_scorer
from .settings import ScorerSettings

if TYPE_CHECKING:
    from .scorer_network import Scorer


class ScorerOracle(LocalModelOracle[ScorerSettings]):
    """P(first wins) = sigmoid((score of the first - score of the second) / temperature)."""

    def __init__(self, settings: ScorerSettings, circumstances: Circumstances | None = None):
        super().__init__(settings, circumstances)
        if not settings.scorer_model:
            raise SettingsError(
                "scorer_model='': name the reward model, a folder or a hub name such as "
                "Skywork/Skywork-Reward-V2-Llama-3.1-8B"
            )

    def check_ready(self) -> None:
        """Raise `ModelError` where the settings name no reward model; of a remote one, only small files are read."""
        check_scorer(self._settings.scorer_model, self._settings.scorer_trust_remote_code, self._stores)

    @cached_property
    def scorer(self) -> Scorer:
        """The loaded model."""
        from .scorer_network import open_scorer

        return open_scorer(self._settings, self._stores)

    @property
    def identity(self) -> str:
        """The model, by name and content, and the temperature."""
        return f"reward_model/{self.scorer.identity}/T={self._settings.scorer_temperature:g}"

    def compare_duels(self, duels: Sequence[Duel]) -> list[Answer]:
        """Score both responses of all duels in one go; a response in several duels of its prompt is read once."""
        texts = [(duel.prompt, response) for duel in duels for response in (duel.first, duel.second)]
        scores = self.scorer.score_texts(texts)
        return [self._compare_scores(*pair) for pair in zip(scores[::2], scores[1::2], strict=True)]

    def _compare_scores(self, first: float, second: float) -> Answer:
        return Answer(win_probability(first, second, self._settings.scorer_temperature), first, second)
