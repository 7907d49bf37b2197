"""People as the oracle: it looks up their answers, or the run waits for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from ..errors import SettingsError, WaitingForLabels
from ..oracles.oracle import Answer, Circumstances
from ..oracles.settings import HumanSettings
from ..records.records import Duel
from .annotations import Annotation
from .missing_answers import count_missing_people

WINS = {"first": 1.0, "second": 0.0, "tie": 0.5}
"""The probability that the first response wins, for each verdict; a skip counts for nothing."""


class HumanOracle:
    """P(first wins) is the mean over the people who answered: 1 for the first, 0 for the second, 0.5 for a tie.

    A mean of exactly 0.5 is undecided; a duel that everybody skipped has no readable answer.
    """

    paid = False
    spending = None
    known_reward = None

    def __init__(self, settings: HumanSettings, answers: Mapping[str, Sequence[Annotation]] | None = None):
        if not settings.human_guideline.strip():
            raise SettingsError("human_guideline='': say what people are asked, such as 'Which answer is better?'")
        self._annotators = settings.human_annotators
        self._answers = answers or {}
        guideline = hashlib.sha256(settings.human_guideline.encode()).hexdigest()[:8]
        self.identity = f"human/{self._annotators} annotators/{guideline}"

    def check_ready(self) -> None:
        """People can always be asked."""

    def compare_duels(self, duels: Sequence[Duel]) -> list[Answer]:
        """Return the answers of people. Raises `WaitingForLabels` if a duel has too few."""
        short = [duel for duel in duels if self._is_short(duel)]
        if short:
            raise WaitingForLabels(
                f"{len(short)} of {len(duels)} duels lack answers from {self._annotators} people, duel "
                f"{short[0].duel_id} first; `oatflow label EXPERIMENT` says how to give them"
            )
        return [average_verdicts(self._answers[duel.duel_id]) for duel in duels]

    def _is_short(self, duel: Duel) -> bool:
        return count_missing_people(self._answers.get(duel.duel_id, ()), self._annotators) > 0


def average_verdicts(annotations: Sequence[Annotation]) -> Answer:
    """Return one answer from all annotations of a duel."""
    verdicts = [WINS[row.verdict] for row in annotations if row.verdict != "skip"]
    raw = json.dumps({row.annotator: row.verdict for row in annotations}, ensure_ascii=False, sort_keys=True)
    if not verdicts:
        return Answer(None, raw=raw, requests=len(annotations))
    mean = sum(verdicts) / len(verdicts)
    left = annotations[0].left
    return Answer(
        mean,
        undecided=mean == 0.5,
        orders={None: None, "first": "given", "second": "swapped"}[left],
        shown_first_wins={None: None, "first": mean, "second": 1 - mean}[left],
        raw=raw,
        requests=len(annotations),
    )


def open_human(settings: HumanSettings, circumstances: Circumstances) -> HumanOracle:
    """Open the oracle without answers; a round opens it again with the answers that people gave."""
    return HumanOracle(settings)
