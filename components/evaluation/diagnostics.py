"""What a round's exploration was worth: regret where rewards are known, and how well labels were foreseen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..labeling.asking import join
from ..ledger.step import Step
from ..records.records import Duel, KnownReward, Preference
from ..records.table import from_parquet
from ..statistics.bootstrap import mean_interval
from .calibration import agreement, brier, expected_calibration_error
from .regret import duel_regret, simple_regret

Facts = dict[str, float]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A duel with its preference, and the known rewards of its prompt's candidates, none where they are not known."""

    duel: Duel
    preference: Preference
    rewards: Sequence[float]


def diagnose(step: Step, samples: int, seed: int) -> Facts:
    """Return what can be said of the step's round; what was not measured is not among it.

    `samples`, `seed`: of the resamples behind the intervals.
    """
    labelled = read_labelled(step)
    asked = [row for row in labelled if not row.duel.synthetic]
    return {
        **regrets(asked, samples, seed),
        **foresight(asked),
        **imagination([row for row in labelled if row.duel.synthetic]),
    }


def regrets(rows: Sequence[Labelled], samples: int, seed: int) -> Facts:
    """Return mean regret of the duels, and of the answers that the ensemble recommends, within the candidates.

    In units of the oracle's reward, with its 95% interval over the prompts. A clash counts: both answers were shown.
    """
    known = [row for row in rows if row.rewards]
    shown = [
        float(duel_regret(_matrix(row), np.array([[row.duel.first_candidate, row.duel.second_candidate]]))[0])
        for row in known
    ]
    picked = [
        float(simple_regret(_matrix(row), np.array([row.duel.recommended]))[0])
        for row in known
        if row.duel.recommended is not None
    ]
    found = _mean(shown, "duel_regret", samples, seed) | _mean(picked, "simple_regret", samples, seed)
    return {**found, "regret_duels": len(known)} if known else {}


def _mean(values: Sequence[float], name: str, samples: int, seed: int) -> Facts:
    """Return a mean with its interval; values that are all equal do not say how far it can be trusted."""
    if not values:
        return {}
    low, high = mean_interval(np.array(values), samples, seed)
    return {name: float(np.mean(values)), **({f"{name}_low": low, f"{name}_high": high} if low < high else {})}


def foresight(rows: Sequence[Labelled]) -> Facts:
    """Compare the ensemble's predictions with the oracle's labels, which it had not learned from."""
    foretold = [
        (row.duel.predicted, row.preference.chosen == "first")
        for row in rows
        if row.duel.predicted is not None and row.preference.chosen is not None
    ]
    if not foretold:
        return {}
    predicted = np.array([chance for chance, _ in foretold], dtype=np.float64)
    won = np.array([winner for _, winner in foretold])
    return {
        "rm_accuracy": float(agreement(predicted, won)),
        "rm_brier": float(brier(predicted, won)),
        "rm_ece": float(expected_calibration_error(predicted, won)),
        "rm_foretold": len(foretold),
    }


def imagination(rows: Sequence[Labelled]) -> Facts:
    """Return the share of synthetic pairs whose label agrees with the known rewards; equal rewards decide nothing."""
    agreed = []
    for row in rows:
        if row.rewards and row.preference.chosen is not None:
            first, second = row.rewards[row.duel.first_candidate], row.rewards[row.duel.second_candidate]
            if first != second:
                agreed.append((first > second) == (row.preference.chosen == "first"))
    return {"synthetic_accuracy": float(np.mean(agreed)), "synthetic_known": len(agreed)} if agreed else {}


def read_labelled(step: Step) -> list[Labelled]:
    """Return the round's duels that have a preference."""
    preferences = join(step.read_parts("labeling", "preferences"))
    duels = {row.duel_id: row for row in from_parquet(step.read("sampling", "duels.parquet"), Duel, "duels.parquet")}
    rewards: dict[str, list[float]] = {}
    for part in step.read_parts("labeling", "rewards"):
        for row in from_parquet(part, KnownReward, "rewards.parquet"):
            rewards.setdefault(row.prompt_id, []).append(row.reward)
    return [Labelled(duels[row.duel_id], row, rewards.get(row.prompt_id, ())) for row in preferences]


def _matrix(row: Labelled) -> npt.NDArray[np.float64]:
    return np.array([row.rewards], dtype=np.float64)
