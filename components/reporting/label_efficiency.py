"""A comparison in numbers: win rates over labels and at equal labels, and labels to a level. Pure.

One draw of prompts serves all groups, so that differences are paired by prompt; each group draws its own seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.held_out import sum_up
from ..records.records import Verdict
from ..seeds import derive
from ..statistics.bootstrap import (
    ADDED,
    ADDED_DIFFERENCES,
    Floats,
    draw_prompts,
    draw_seeds,
    estimate_from,
    find_reach,
    resample_rates,
    resample_seeds,
    score_outcomes,
    upper_median,
)
from ..statistics.equal_length import fit_equal_length, refuse_length_control
from ..statistics.intervals import Estimate, estimate_mean, estimate_outcome, outcome_interval
from .entrants import Entrant, ExperimentComparison, Group, Measurement


@dataclass(frozen=True, slots=True)
class Reached:
    """A mean on the way: after how many labels, in the mean over the seeds, and what it was."""

    labels: int
    found: Estimate


@dataclass(frozen=True, slots=True)
class Level:
    """A group at equal labels: the last measured round of each experiment at or below `most` labels.

    `labels`: of these rounds, smallest and largest. `prompts`: judged in all of them, of all groups. `difference`: to
    the first group, None for that group itself. `equal_length`: None where it cannot be had; then `reason` says why.
    """

    most: int
    labels: tuple[int, int]
    prompts: int
    rate: Estimate
    difference: Estimate | None
    equal_length: Estimate | None
    reason: str


@dataclass(frozen=True, slots=True)
class Reach:
    """Labels until more than half of the seeds had reached a level; infinite where they never did, of `within` labels.

    A seed has reached it where the lower end of its interval has. `seeds`: how many did.
    """

    level: float
    labels: Estimate
    seeds: int
    within: int


def outcome(verdict: Verdict) -> float:
    """1 for a prompt won, 0.5 for a tie, 0 for a loss."""
    return float(score_outcomes([verdict.policy_wins])[0])


def extra_tokens(verdict: Verdict) -> float:
    """By how much the policy's answer is longer than the opponent's."""
    return float(verdict.response_tokens - verdict.opponent_tokens)


def curve(group: Group, seed: int, of: Callable[[Verdict], float] = outcome) -> list[Reached]:
    """Return a mean over prompts and seeds after each round that all experiments of the group measured.

    `of`: what is averaged, the outcome or, for instance, the length of an answer.
    """
    names = _list_prompts(group.entrants)
    rounds = min(len(entrant.measured) for entrant in group.entrants)
    tables = [_tabulate_rounds(entrant, names, of)[:rounds] for entrant in group.entrants]
    labels = np.mean([[one.labels for one in entrant.measured[:rounds]] for entrant in group.entrants], 0)
    if len(tables) == 1:
        # One experiment: the same interval as in its own report.
        estimate = estimate_outcome if of is outcome else estimate_mean
        found = [estimate(row[~np.isnan(row)]) for row in tables[0]]
    else:
        added = ADDED if of is outcome else ADDED[:0]
        guarded = [np.hstack([table, np.tile(added, (rounds, 1))]) for table in tables]
        weights, draws = draw_prompts(len(names) + len(added), derive(seed, "prompts")), _draw_group_seeds(group, seed)
        resampled = resample_seeds([resample_rates(table, weights) for table in guarded], draws).mean(1)
        rates = np.mean([np.nanmean(table, 1) for table in tables], 0)
        found = [estimate_from(float(rates[place]), resampled[:, place]) for place in range(rounds)]
    return [Reached(round(float(labels[place])), one) for place, one in enumerate(found)]


def equal_labels(comparison: ExperimentComparison) -> int:
    """Return the largest number of labels that every experiment has a measured round at or beyond."""
    return min(entrant.measured[-1].labels for group in comparison.groups for entrant in group.entrants)


def at_equal_labels(comparison: ExperimentComparison, seed: int) -> list[Level | None]:
    """Compare the groups at equal labels; None for one that measured nothing so early. No round is interpolated."""
    most = equal_labels(comparison)
    found = [[_last_within(entrant, most) for entrant in group.entrants] for group in comparison.groups]
    chosen = [[one for one in ones if one is not None] for ones in found]
    whole = [len(ones) == len(group.entrants) for ones, group in zip(chosen, comparison.groups, strict=True)]
    shared = set.intersection(*(set(one.verdicts) for ones in chosen for one in ones))
    names = sorted(shared)
    if not names:
        return [None] * len(chosen)
    weights = draw_prompts(len(names) + len(ADDED), derive(seed, "prompts"))
    rates = [
        _draw_rates(group, ones, names, weights, seed) if there else None
        for group, ones, there in zip(comparison.groups, chosen, whole, strict=True)
    ]
    return [
        None
        if own is None
        else _make_level(
            most,
            ones,
            names,
            own,
            _estimate_difference(own, rates[0] if place else None, weights, len(rates) - 1),
            _equal_length(group, ones, names, seed),
        )
        for place, (group, ones, own) in enumerate(zip(comparison.groups, chosen, rates, strict=True))
    ]


def reach(group: Group, level: float, seed: int) -> Reach:
    """Return how many labels the group needs until the interval of its win rate lies at `level` or above."""
    names = _list_prompts(group.entrants)
    weights, draws = draw_prompts(len(names), derive(seed, "prompts")), _draw_group_seeds(group, seed)
    own, resampled = [], []
    for entrant in group.entrants:
        table, labels = _tabulate_rounds(entrant, names, outcome), [one.labels for one in entrant.measured]
        cases, squares = (~np.isnan(table)).sum(1), table**2
        own.append(find_reach(_low_end(np.nanmean(table, 1), np.nanmean(squares, 1), cases), labels, level))
        drawn = resample_rates(table, weights), resample_rates(squares, weights)
        resampled.append(find_reach(_low_end(*drawn, cases), labels, level))
    first = np.array(own)
    return Reach(
        level,
        estimate_from(float(upper_median(first)), upper_median(resample_seeds(resampled, draws))),
        int(np.isfinite(first).sum()),
        max(entrant.measured[-1].labels for entrant in group.entrants),
    )


_Rates = tuple[Estimate, Floats]
"""A win rate, and that of each resample of the prompts and seeds, without the outcomes that are added."""


def _make_level(
    most: int, ones: Sequence[Measurement], names: Sequence[str], own: _Rates, difference: Estimate | None,
    equal_length: tuple[Estimate | None, str],
) -> Level:  # fmt: skip
    labels = [one.labels for one in ones]
    return Level(most, (min(labels), max(labels)), len(names), own[0], difference, *equal_length)


def _draw_rates(
    group: Group, ones: Sequence[Measurement], names: Sequence[str], weights: Floats, seed: int
) -> _Rates:  # fmt: skip
    won = [np.array([outcome(one.verdicts[name]) for name in names]) for one in ones]
    of_prompts, of_added = weights[:, : len(names)], weights[:, len(names) :]
    resampled = resample_seeds([of_prompts @ row for row in won], _draw_group_seeds(group, seed)).mean(1)
    rate = float(np.mean(won))
    alone = len(won) == 1
    return estimate_outcome(won[0]) if alone else estimate_from(rate, resampled + of_added @ ADDED), resampled


def _estimate_difference(own: _Rates, first: _Rates | None, weights: Floats, comparisons: int) -> Estimate | None:
    """Return a group's win rate minus the first group's; all such intervals hold together."""
    if first is None:
        return None
    resampled = own[1] - first[1] + weights[:, -len(ADDED_DIFFERENCES) :] @ ADDED_DIFFERENCES
    return estimate_from(own[0].value - first[0].value, resampled, comparisons)


def _low_end(means: Floats, squares: Floats, cases: Floats) -> Floats:
    """Return the lower ends of the intervals of win rates from the outcomes' means and mean squares."""
    return outcome_interval(means, squares, cases)[0]


def _equal_length(
    group: Group, ones: Sequence[Measurement], names: Sequence[str], seed: int
) -> tuple[Estimate | None, str]:
    """Return the mean over seeds of the win rate at equal length, or why there is none."""
    if len(ones) == 1:
        # The same numbers as in the experiment's own report.
        own = sum_up([ones[0].verdicts[name] for name in names], derive(group.seeds[0], ones[0].round, "report"))
        return (own.length_controlled, own.no_length_control) if own else (None, "no prompt was judged")
    pairs = [
        tuple(np.array([of(one.verdicts[name]) for name in names]) for of in (outcome, extra_tokens)) for one in ones
    ]
    reasons = [reason for won, longer in pairs if (reason := refuse_length_control(won, longer))]
    if reasons:
        return None, reasons[0]
    weights = draw_prompts(len(names), derive(seed, "prompts"))
    fitted = [fit_equal_length(won, longer, weights) for won, longer in pairs]
    resampled = resample_seeds([rates for _, rates in fitted], _draw_group_seeds(group, seed)).mean(1)
    return estimate_from(float(np.mean([value for value, _ in fitted])), resampled), ""


def _last_within(entrant: Entrant, most: int) -> Measurement | None:
    return next((one for one in reversed(entrant.measured) if one.labels <= most), None)


def _list_prompts(entrants: Sequence[Entrant]) -> list[str]:
    return sorted({name for entrant in entrants for one in entrant.measured for name in one.verdicts})


def _tabulate_rounds(entrant: Entrant, names: Sequence[str], of: Callable[[Verdict], float]) -> Floats:
    """Numbers of each measured round, (R, P); NaN where a prompt was not judged."""
    rows = [[of(one.verdicts[name]) if name in one.verdicts else np.nan for name in names] for one in entrant.measured]
    return np.array(rows, dtype=np.float64)


def _draw_group_seeds(group: Group, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return draw_seeds(len(group.entrants), derive(seed, "seeds", group.name))
