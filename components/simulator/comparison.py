"""Strategies side by side: every one in the world of every seed, with one equal budget of queries. K seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from .duels import RANDOM
from .play import Moment, Play, Rules, play
from .workers import mapped
from .worlds import World

LATE = 0.25
"""Share of the queries, the last ones, over which the state of the reward model is averaged."""
OF_DUELS = ("duel_regret", "clash_rate")
OF_THE_MODEL = ("win_rate", "simple_regret", "pair_accuracy")
MEASURES = (*OF_THE_MODEL, *OF_DUELS)
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5% quantiles of Student's t with 1, 2, ... degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its 95% interval (Student's t); from one seed there is no interval."""

    mean: float
    low: float | None
    high: float | None


Curve = list[tuple[int, Estimate]]
"""Numbers of queries, and what was measured there."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A strategy's measures, and their differences to random in the same worlds (None for random itself)."""

    strategy: str
    spent: float
    measures: dict[str, Estimate]
    against_random: dict[str, Estimate] | None


@dataclass(frozen=True, slots=True)
class Comparison:
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


def compare(
    worlds: Sequence[World],
    strategies: Sequence[str],
    rules: Rules,
    jobs: int = 1,
    tell: Callable[[int, int], None] = lambda done, all_: None,
) -> Comparison:
    """Let each of the strategies and the random baseline play in every world; the number of a world is its seed.

    `jobs`: processes; they change nothing but the time. `tell`: hears of every play that is done.
    """
    names = tuple(dict.fromkeys([RANDOM, *strategies]))
    tasks = [(world, name, rules, seed) for seed, world in enumerate(worlds) for name in names]
    plays = []
    for done in mapped(_played, tasks, jobs):
        plays.append(done)
        tell(len(plays), len(tasks))
    return Comparison(rules, names, tuple(plays))


def summaries(comparison: Comparison) -> list[Summary]:
    """Sum every strategy up."""
    return [_summary(comparison, strategy) for strategy in comparison.strategies]


def curve(comparison: Comparison, strategy: str, measure: str) -> Curve:
    """Return a measure after M, 2M, ... queries."""
    plays = comparison.of(strategy)
    return [(queries, estimate([_at(play, queries, measure) for play in plays])) for queries in grid(comparison.rules)]


def difference_curve(comparison: Comparison, strategy: str, measure: str) -> Curve:
    """Return how much more it is than random's in the same worlds, after M, 2M, ... queries."""
    pairs = list(zip(comparison.of(strategy), comparison.of(RANDOM), strict=True))
    return [
        (queries, estimate([_at(own, queries, measure) - _at(other, queries, measure) for own, other in pairs]))
        for queries in grid(comparison.rules)
    ]


def grid(rules: Rules) -> list[int]:
    """Return the numbers of queries at which curves are drawn: one, two, ... rounds without a clash."""
    return [*range(rules.prompts, rules.queries, rules.prompts), rules.queries]


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of K independent values and its 95% interval."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Estimate(mean, None, None)
    half = student_t(count - 1) * float(np.std(values, ddof=1)) / sqrt(count)
    return Estimate(mean, mean - half, mean + half)


def student_t(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t; beyond the table by its expansion (error below 0.001)."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.959964 + 2.3724 / freedom + 2.82 / freedom**2


def over_play(play: Play, measure: str) -> float:
    """Return a measure of one play: of duels the mean over all rounds, of the model over the last queries."""
    rounds = play.moments[1:]
    if measure in OF_THE_MODEL:
        rounds = late(play)
    return float(np.mean([getattr(moment, measure) for moment in rounds]))


def late(play: Play) -> tuple[Moment, ...]:
    """Return the rounds of the last queries."""
    rounds = play.moments[1:]
    return tuple(moment for moment in rounds if moment.queries > (1 - LATE) * play.spent) or rounds[-1:]


def _played(task: tuple[World, str, Rules, int]) -> Play:
    return play(*task)


def _summary(comparison: Comparison, strategy: str) -> Summary:
    plays = comparison.of(strategy)
    measures = {measure: estimate([over_play(play, measure) for play in plays]) for measure in MEASURES}
    against = None if strategy == RANDOM else dict(_differences(comparison, strategy))
    return Summary(strategy, float(np.mean([play.spent for play in plays])), measures, against)


def _differences(comparison: Comparison, strategy: str) -> Iterator[tuple[str, Estimate]]:
    pairs = list(zip(comparison.of(strategy), comparison.of(RANDOM), strict=True))
    for measure in MEASURES:
        yield measure, estimate([over_play(own, measure) - over_play(other, measure) for own, other in pairs])


def _at(play: Play, queries: int, measure: str) -> float:
    """Return a measure as it stood when so many queries were paid; the first round's, where that paid more."""
    reached = [moment for moment in play.moments[1:] if moment.queries <= queries]
    return float(getattr((reached or play.moments[1:2])[-1], measure))
