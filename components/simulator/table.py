"""A comparison in numbers and words: one table, one sentence a question, and the curves as CSV. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from math import isnan

from ..reporting.words import NOT_MEASURED, count
from .comparison import MEASURES, Comparison, Estimate, Summary, summaries
from .duels import RANDOM

HEAD = (
    "Strategy", "Win rate", "to random", "Simple regret", "to random", "Duel regret", "to random", "Clashes",
    "Pair accuracy",
)  # fmt: skip
SHARES = ("win_rate", "clash_rate", "pair_accuracy")
LOW_IS_GOOD = ("simple_regret", "duel_regret")


def table(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return head and one row a strategy; numbers with their 95% intervals, differences to random paired by seed."""
    return [HEAD, *(_row(summary) for summary in summaries(comparison))]


def lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Return a table as text, its first column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        shown = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        yield "  ".join(shown)


def verdicts(comparison: Comparison) -> list[str]:
    """Say who beats random, for each of the two objectives, and what the budget left."""
    rows = summaries(comparison)
    return [
        _verdict(rows, "win_rate", "held-out win rate (is the final answer good?)", comparison),
        _verdict(rows, "duel_regret", "duel regret (is every answer shown good?)", comparison),
        *_unspent(rows, comparison.rules.queries),
    ]


def to_csv(comparison: Comparison) -> str:
    """Return every moment of every play; the one before the first round has no duels."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["strategy", "seed", "round", "queries", *MEASURES])
    for play in comparison.plays:
        for round_, moment in enumerate(play.moments):
            measures = (getattr(moment, measure) for measure in MEASURES)
            cells = ("" if isnan(value) else f"{value:.6g}" for value in measures)
            writer.writerow([play.strategy, play.seed, round_, moment.queries, *cells])
    return out.getvalue()


def shown(value: Estimate, share: bool, signed: bool = False) -> str:
    """Write an estimate with its interval: 71.4% [69.9, 72.9], or +0.12 [-0.01, 0.25]; of one seed, alone."""
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


def beats_random(summary: Summary, measure: str) -> int:
    """Return 1 where the interval of the difference to random lies on the good side of 0, -1 on the bad, else 0."""
    difference = summary.against_random[measure] if summary.against_random else None
    if difference is None or difference.low is None or difference.high is None:
        return 0
    good = -1 if measure in LOW_IS_GOOD else 1
    return good if difference.low > 0 else -good if difference.high < 0 else 0


def _row(summary: Summary) -> tuple[str, ...]:
    def of(measure: str) -> str:
        return shown(summary.measures[measure], measure in SHARES)

    def against(measure: str) -> str:
        if summary.against_random is None:
            return NOT_MEASURED
        return shown(summary.against_random[measure], measure in SHARES, signed=True)

    compared = (cell for measure in ("win_rate", *LOW_IS_GOOD) for cell in (of(measure), against(measure)))
    return summary.strategy, *compared, of("clash_rate"), of("pair_accuracy")


def _verdict(rows: Sequence[Summary], measure: str, name: str, comparison: Comparison) -> str:
    rivals = [row for row in rows if row.strategy != RANDOM]
    if comparison.seeds < 2:
        return f"By {name}: one seed cannot tell strategies apart; take more."
    groups = ((1, "better than random"), (-1, "worse"), (0, "not to be told apart from it"))
    parts = (
        f"{', '.join(names)} {said}"
        for side, said in groups
        if (names := [row.strategy for row in rivals if beats_random(row, measure) == side])
    )
    return f"By {name}: {'; '.join(parts) or 'random played alone'}."


def _unspent(rows: Sequence[Summary], queries: int) -> Iterator[str]:
    for row in rows:
        if row.spent < queries:
            yield (
                f"{row.strategy} spent {count(round(row.spent))} of {count(queries)} queries on the average: "
                "its members agree so often that most of its duels are clashes, which are free."
            )
