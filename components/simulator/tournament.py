"""A tournament: every strategy plays in the world of every seed, with the same budget of queries. K seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from ..statistics.exact import paired_test, student_quantile
from .duels import RANDOM
from .play import Moment, Play, Rules, play
from .workers import map_tasks
from .worlds import World

LATE = 0.25
"""The reward model's measures are averaged over this last share of the queries."""
OF_DUELS = ("duel_regret", "clash_rate")
OF_THE_MODEL = ("win_rate", "simple_regret", "pair_accuracy")
MEASURES = (*OF_THE_MODEL, *OF_DUELS)
SHARES = ("win_rate", "clash_rate", "pair_accuracy")


@dataclass(frozen=True, slots=True)
class SeedMean:
    """A mean over seeds with its 95% interval (Student's t); from one seed there is no interval."""

    mean: float
    low: float | None
    high: float | None


SeedCurve = list[tuple[int, SeedMean]]
"""Numbers of queries, and what was measured after them."""


@dataclass(frozen=True, slots=True)
class StrategySummary:
    """A strategy's measures, and their differences to random in the same worlds (None for random itself).

    `p_values`: of each difference alone, by Student's paired test; None from one seed.
    """

    strategy: str
    spent: float
    measures: dict[str, SeedMean]
    against_random: dict[str, SeedMean] | None
    p_values: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Tournament:
    """All plays of all strategies."""

    rules: Rules
    strategies: tuple[str, ...]
    plays: tuple[Play, ...]

    def of(self, strategy: str) -> list[Play]:
        """Return a strategy's plays, by seed."""
        return [play for play in self.plays if play.strategy == strategy]

    @property
    def seeds(self) -> int:
        """In how many worlds each strategy played."""
        return len(self.of(RANDOM))


def play_tournament(
    worlds: Sequence[World],
    strategies: Sequence[str],
    rules: Rules,
    jobs: int = 1,
    tell: Callable[[int, int], None] = lambda done, all_: None,
) -> Tournament:
    """Let each of the strategies and the random baseline play in every world; the number of a world is its seed.

    `jobs`: processes; the result does not depend on them. `tell`: called after each play with the plays done and all.
    """
    names = tuple(dict.fromkeys([RANDOM, *strategies]))
    tasks = [(world, name, rules, seed) for seed, world in enumerate(worlds) for name in names]
    plays = []
    for done in map_tasks(_play_task, tasks, jobs):
        plays.append(done)
        tell(len(plays), len(tasks))
    return Tournament(rules, names, tuple(plays))


def summarise_strategies(tournament: Tournament) -> list[StrategySummary]:
    """Return one summary per strategy."""
    return [_summarise_strategy(tournament, strategy) for strategy in tournament.strategies]


def measure_curve(tournament: Tournament, strategy: str, measure: str) -> SeedCurve:
    """Return a measure after M, 2M, ... queries."""
    plays = tournament.of(strategy)
    return [
        (queries, average_seeds([_read_measure(play, queries, measure) for play in plays], *_bounds_of(measure)))
        for queries in list_query_counts(tournament.rules)
    ]


def measure_difference(tournament: Tournament, strategy: str, measure: str) -> SeedCurve:
    """Return a measure minus random's in the same worlds, after M, 2M, ... queries."""
    pairs = list(zip(tournament.of(strategy), tournament.of(RANDOM), strict=True))
    return [
        (
            queries,
            average_seeds(
                [_read_measure(own, queries, measure) - _read_measure(other, queries, measure) for own, other in pairs],
                *_difference_bounds(measure),
            ),
        )
        for queries in list_query_counts(tournament.rules)
    ]


def list_query_counts(rules: Rules) -> list[int]:
    """Return the numbers of queries at which curves are drawn: one, two, ... rounds without a clash."""
    return [*range(rules.prompts, rules.queries, rules.prompts), rules.queries]


def average_seeds(values: Sequence[float], lowest: float = -inf, highest: float = inf) -> SeedMean:
    """Return the mean of K independent values and its 95% interval, cut where no mean can be."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return SeedMean(mean, None, None)
    half = student_quantile(count - 1) * float(np.std(values, ddof=1)) / sqrt(count)
    return SeedMean(mean, max(lowest, mean - half), min(highest, mean + half))


def _bounds_of(measure: str) -> tuple[float, float]:
    return (0.0, 1.0 if measure in SHARES else inf)


def _difference_bounds(measure: str) -> tuple[float, float]:
    _, highest = _bounds_of(measure)
    return -highest, highest


def average_play(play: Play, measure: str) -> float:
    """Return the mean of a measure in one play: over all rounds for duels, over the last queries for the model."""
    rounds = play.moments[1:]
    if measure in OF_THE_MODEL:
        rounds = select_late_rounds(play)
    return float(np.mean([getattr(moment, measure) for moment in rounds]))


def select_late_rounds(play: Play) -> tuple[Moment, ...]:
    """Return the rounds of the last queries."""
    rounds = play.moments[1:]
    return tuple(moment for moment in rounds if moment.queries > (1 - LATE) * play.spent) or rounds[-1:]


def _play_task(task: tuple[World, str, Rules, int]) -> Play:
    return play(*task)


def _summarise_strategy(tournament: Tournament, strategy: str) -> StrategySummary:
    plays = tournament.of(strategy)
    measures = {
        measure: average_seeds([average_play(play, measure) for play in plays], *_bounds_of(measure))
        for measure in MEASURES
    }
    pairs = list(zip(plays, tournament.of(RANDOM), strict=True))
    differences = {
        measure: [average_play(own, measure) - average_play(other, measure) for own, other in pairs]
        for measure in MEASURES
    }
    against = {name: average_seeds(values, *_difference_bounds(name)) for name, values in differences.items()}
    return StrategySummary(
        strategy,
        float(np.mean([play.spent for play in plays])),
        measures,
        None if strategy == RANDOM else against,
        {name: paired_test(values) for name, values in differences.items()},
    )


def _read_measure(play: Play, queries: int, measure: str) -> float:
    """Return a measure after at most this many queries; that of the first round, where it already took more."""
    reached = [moment for moment in play.moments[1:] if moment.queries <= queries]
    return float(getattr((reached or play.moments[1:2])[-1], measure))
