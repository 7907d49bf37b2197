"""PairRM (arXiv 2306.02561): a network that reads both responses at once, asked in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..model_folder import short_name
from ..records.records import Duel
from .bradley_terry import win_probability
from .local_model import LocalModelOracle
from .oracle import Answer, Circumstances
from .pairrm_folder import PairRMFolder, find_pairrm
from .settings import PairRMSettings

if TYPE_CHECKING:
    from .pairrm_network import PairRM


class PairRMOracle(LocalModelOracle[PairRMSettings]):
    """P(first wins) = sigmoid(logit of the first shown first - logit of the second shown first), as in llm-blender."""

    def __init__(self, settings: PairRMSettings, circumstances: Circumstances | None = None):
        super().__init__(settings, circumstances)
        if not settings.pairrm_model:
            raise SettingsError(
                "pairrm_model='': name the ranker, a folder or a hub name such as llm-blender/PairRM-hf"
            )

    def check_ready(self) -> None:
        """Raise `ModelError` where the settings name no PairRM; of a remote one, only small files are read."""
        find_pairrm(self._settings.pairrm_model, weights=False, stores=self._stores)

    @cached_property
    def identity(self) -> str:
        """The ranker, by name and content."""
        return f"pairrm/{short_name(self._settings.pairrm_model)}@{self._found.digest}"

    def compare_duels(self, duels: Sequence[Duel]) -> list[Answer]:
        """Ask about each duel in both orders."""
        given = [(duel.prompt, duel.first, duel.second) for duel in duels]
        swapped = [(prompt, second, first) for prompt, first, second in given]
        logits = self._network.compute_logits([*given, *swapped])
        return [_read_logits(*both) for both in zip(logits[: len(duels)], logits[len(duels) :], strict=True)]

    @cached_property
    def _found(self) -> PairRMFolder:
        return find_pairrm(self._settings.pairrm_model, stores=self._stores)

    @cached_property
    def _network(self) -> PairRM:
        from .pairrm_network import PairRM

        return PairRM(self._found, self._settings.pairrm_batch_size)


def _read_logits(given: float, swapped: float) -> Answer:
    """Read the log-odds, in either order, of what is shown first."""
    return Answer(
        win_probability(given, swapped),
        orders="both",
        shown_first_wins=(win_probability(given, 0) + win_probability(swapped, 0)) / 2,
        consistent=(given > 0) != (swapped > 0),
    )
