"""A tournament in numbers and words: one table, one sentence per question, and the curves as CSV. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from math import isnan

from ..reporting.words import NOT_MEASURED, count
from ..statistics.exact import reject_together
from .duels import RANDOM
from .tournament import MEASURES, SHARES, SeedMean, StrategySummary, Tournament, summarise_strategies

HEAD = (
    "Strategy", "Win rate", "to random", "Simple regret", "to random", "Duel regret", "to random", "Clashes",
    "Pair accuracy",
)  # fmt: skip
LOW_IS_GOOD = ("simple_regret", "duel_regret")


def tabulate_tournament(tournament: Tournament) -> list[tuple[str, ...]]:
    """Return the head and a row per strategy: means with 95% intervals, differences to random paired by seed."""
    return [HEAD, *(_table_row(summary) for summary in summarise_strategies(tournament))]


def align_columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table as text, its first column aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        padded = [
            name.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)),
        ]
        yield "  ".join(padded)


def state_findings(tournament: Tournament) -> list[str]:
    """Return sentences: which strategies beat random by each objective, and which did not spend their budget."""
    rows = summarise_strategies(tournament)
    sides = compare_with_random(rows)
    return [
        _state_finding(sides, "win_rate", "held-out win rate (is the final answer good?)", tournament),
        _state_finding(sides, "duel_regret", "duel regret (is every answer shown good?)", tournament),
        *_describe_correction(len(sides), tournament.seeds),
        *_report_unspent(rows, tournament.rules.queries),
    ]


def write_csv(tournament: Tournament) -> str:
    """Return every moment of every play; the one before the first round has no duels."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["strategy", "seed", "round", "queries", *MEASURES])
    for play in tournament.plays:
        for round_, moment in enumerate(play.moments):
            measures = (getattr(moment, measure) for measure in MEASURES)
            cells = ("" if isnan(value) else f"{value:.6g}" for value in measures)
            writer.writerow([play.strategy, play.seed, round_, moment.queries, *cells])
    return out.getvalue()


def format_mean(value: SeedMean, share: bool, signed: bool = False) -> str:
    """Return a mean with its interval as text, 71.4% [69.9, 72.9]; from one seed, just the mean."""
    if isnan(value.mean):
        return NOT_MEASURED
    scale, digits, unit = (100, 1, "" if signed else "%") if share else (1, 3, "")

    def number(part: float, plus: str) -> str:
        # Adding 0 makes no number of what rounds to -0.
        return f"{round(scale * part, digits) + 0.0:{plus}.{digits}f}"

    mean = number(value.mean, "+" if signed else "") + unit
    if value.low is None or value.high is None:
        return mean
    return f"{mean} [{number(value.low, '')}, {number(value.high, '')}]"


def compare_with_random(rows: Sequence[StrategySummary]) -> dict[tuple[str, str], int]:
    """Return by strategy and measure: 1 for better than random, -1 for worse, 0 for not distinguishable from it.

    Holm's correction is over all of them, so that with 95% none is called better or worse by chance.
    """
    tested = [
        (row.strategy, measure, row.against_random[measure].mean, row.p_values[measure])
        for measure in ("win_rate", "duel_regret")
        for row in rows
        if row.against_random is not None
    ]
    rejected = reject_together([1.0 if p is None else p for *_, p in tested])
    return {
        (name, measure): 0 if not sure else 1 if (mean > 0) != (measure in LOW_IS_GOOD) else -1
        for (name, measure, mean, _), sure in zip(tested, rejected, strict=True)
    }


def _describe_correction(comparisons: int, seeds: int) -> Iterator[str]:
    if comparisons > 1 and seeds > 1:
        yield (
            f"With 95%, none of these {comparisons} comparisons calls a strategy better or worse by chance (Holm); the "
            "interval of a single difference may exclude 0 all the same."
        )


def _table_row(summary: StrategySummary) -> tuple[str, ...]:
    def of(measure: str) -> str:
        return format_mean(summary.measures[measure], measure in SHARES)

    def against(measure: str) -> str:
        if summary.against_random is None:
            return NOT_MEASURED
        return format_mean(summary.against_random[measure], measure in SHARES, signed=True)

    compared = (cell for measure in ("win_rate", *LOW_IS_GOOD) for cell in (of(measure), against(measure)))
    return summary.strategy, *compared, of("clash_rate"), of("pair_accuracy")


def _state_finding(sides: Mapping[tuple[str, str], int], measure: str, name: str, tournament: Tournament) -> str:
    rivals = [strategy for strategy in tournament.strategies if strategy != RANDOM]
    if tournament.seeds < 2:
        return f"By {name}: one seed cannot separate the strategies; use more seeds."
    groups = ((1, "better than random"), (-1, "worse"), (0, "not distinguishable from it"))
    parts = (
        f"{', '.join(names)} {said}"
        for side, said in groups
        if (names := [rival for rival in rivals if sides[rival, measure] == side])
    )
    return f"By {name}: {'; '.join(parts) or 'random played alone'}."


def _report_unspent(rows: Sequence[StrategySummary], queries: int) -> Iterator[str]:
    for row in rows:
        if row.spent < queries:
            yield (
                f"{row.strategy} spent {count(round(row.spent))} of {count(queries)} queries on average: "
                "its members agree so often that most of its duels are clashes, which cost nothing."
            )
