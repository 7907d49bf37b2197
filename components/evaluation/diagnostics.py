"""What a round's exploration was worth: regret where rewards are known, and how well labels were predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
import numpy.typing as npt

from ..records.keep import FinishedSteps, read_table
from ..records.records import Duel, KnownReward, Preference
from ..records.tables import DUELS, KNOWN_REWARDS, PREFERENCES
from ..statistics.intervals import estimate_outcome, mean_interval
from .calibration import brier_score, calibrated_error, expected_calibration_error, measure_agreement
from .regret import duel_regret, simple_regret

Facts = dict[str, float]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A duel with its preference, and the known rewards of its prompt's candidates, none where they are not known."""

    duel: Duel
    preference: Preference
    rewards: Sequence[float]


def diagnose_round(finished: FinishedSteps, round_: int, seed: int, believed: Sequence[float] | None = None) -> Facts:
    """Return what is known of a round's exploration; what was not measured is left out.

    `seed`: of the labels that a calibrated forecaster is compared on. `believed`: the ensemble's reward of each
    candidate, before it learned from the round.
    """
    labelled = read_labelled(finished, round_)
    asked = [row for row in labelled if not row.duel.synthetic]
    return {
        **measure_regret(asked),
        **measure_predictions(asked, seed),
        **(measure_pairs(read_known_rewards(finished, round_), believed) if believed else {}),
        **measure_synthetic([row for row in labelled if row.duel.synthetic]),
    }


def measure_regret(rows: Sequence[Labelled]) -> Facts:
    """Return mean regret of the duels, and of the answers that the ensemble recommends, within the candidates.

    In units of the oracle's reward, with its 95% interval over the prompts. A clash counts: both answers were shown.
    """
    known = [row for row in rows if row.rewards]
    shown = [
        float(duel_regret(_rewards_row(row), np.array([[row.duel.first_candidate, row.duel.second_candidate]]))[0])
        for row in known
    ]
    picked = [
        float(simple_regret(_rewards_row(row), np.array([row.duel.recommended]))[0])
        for row in known
        if row.duel.recommended is not None
    ]
    found = {
        **_summarise_regret(shown, "duel_regret"),
        **_summarise_regret(picked, "simple_regret"),
    }
    return {**found, "regret_duels": len(known)} if known else {}


def _summarise_regret(values: Sequence[float], name: str) -> Facts:
    """Return a mean with its interval; values that are all equal have no interval. Regret is never negative."""
    if not values:
        return {}
    ends = mean_interval(values)
    return {name: fmean(values), **({f"{name}_low": max(0.0, ends[0]), f"{name}_high": ends[1]} if ends else {})}


def measure_predictions(rows: Sequence[Labelled], seed: int) -> Facts:
    """Compare the ensemble's predictions with the oracle's labels, which it had not learned from.

    These are the duels that the strategy picked, often those that the ensemble is least sure of: the numbers say how
    one experiment goes on, and cannot compare strategies. `rm_pair_accuracy` can, see `measure_pairs`.
    """
    predictions = [
        (row.duel.predicted, row.preference.chosen == "first")
        for row in rows
        if row.duel.predicted is not None and row.preference.chosen is not None
    ]
    if not predictions:
        return {}
    predicted = np.array([chance for chance, _ in predictions], dtype=np.float64)
    won = np.array([winner for _, winner in predictions])
    return {
        "rm_accuracy": float(measure_agreement(predicted, won)),
        "rm_brier": float(brier_score(predicted, won)),
        "rm_ece": float(expected_calibration_error(predicted, won)),
        "rm_ece_calibrated": calibrated_error(predicted, seed),
        "rm_foretold": len(predictions),
    }


def measure_pairs(known: Sequence[KnownReward], believed: Sequence[float]) -> Facts:
    """Return the share of all pairs of a prompt's candidates that the ensemble ranks as their known rewards do.

    It does not depend on which duels were picked, so it compares strategies. Equal rewards do not count, and equal
    beliefs are half right. The interval is over the prompts, since the pairs of one prompt belong together.
    """
    by_prompt: dict[str, list[tuple[float, float]]] = {}
    for row, belief in zip(known, believed, strict=bool(known)):
        by_prompt.setdefault(row.prompt_id, []).append((row.reward, belief))
    ranked = [
        [(1 + np.sign((a - b) * (c - d))) / 2 for (a, c), (b, d) in combinations(rows, 2) if a != b]
        for rows in by_prompt.values()
    ]
    shares = [fmean(pairs) for pairs in ranked if pairs]
    if not shares:
        return {}
    found = estimate_outcome(shares)
    return {
        "rm_pair_accuracy": found.value,
        **({"rm_pair_low": found.low, "rm_pair_high": found.high} if found.low is not None and found.high else {}),
        "rm_pair_prompts": len(shares),
    }


def measure_synthetic(rows: Sequence[Labelled]) -> Facts:
    """Return the share of synthetic pairs whose label agrees with the known rewards; equal rewards do not count."""
    agreed = []
    for row in rows:
        if row.rewards and row.preference.chosen is not None:
            first, second = row.rewards[row.duel.first_candidate], row.rewards[row.duel.second_candidate]
            if first != second:
                agreed.append((first > second) == (row.preference.chosen == "first"))
    return {"synthetic_accuracy": float(np.mean(agreed)), "synthetic_known": len(agreed)} if agreed else {}


def read_labelled(finished: FinishedSteps, round_: int) -> list[Labelled]:
    """Return a round's duels that have a preference."""
    duels = {row.duel_id: row for row in read_table(finished, DUELS, round_)}
    rewards: dict[str, list[float]] = {}
    for row in read_known_rewards(finished, round_):
        rewards.setdefault(row.prompt_id, []).append(row.reward)
    preferences = read_table(finished, PREFERENCES, round_)
    return [Labelled(duels[row.duel_id], row, rewards.get(row.prompt_id, ())) for row in preferences]


def read_known_rewards(finished: FinishedSteps, round_: int) -> list[KnownReward]:
    """Return the known rewards of a round's candidates, in their order; none where the oracle knows none."""
    is_known = KNOWN_REWARDS.name in finished.list_outputs(KNOWN_REWARDS.step, round_)
    return list(read_table(finished, KNOWN_REWARDS, round_)) if is_known else []


def _rewards_row(row: Labelled) -> npt.NDArray[np.float64]:
    return np.array([row.rewards], dtype=np.float64)
