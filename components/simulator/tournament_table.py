"""A tournament in numbers and words: one table, one sentence per question, and the curves as CSV. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from math import isnan

from ..reporting.words import NOT_MEASURED, count
from .duels import RANDOM
from .tournament import MEASURES, SeedMean, StrategySummary, Tournament, summarise_strategies

HEAD = (
    "Strategy", "Win rate", "to random", "Simple regret", "to random", "Duel regret", "to random", "Clashes",
    "Pair accuracy",
)  # fmt: skip
SHARES = ("win_rate", "clash_rate", "pair_accuracy")
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
    return [
        _state_finding(rows, "win_rate", "held-out win rate (is the final answer good?)", tournament),
        _state_finding(rows, "duel_regret", "duel regret (is every answer shown good?)", tournament),
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


def beats_random(summary: StrategySummary, measure: str) -> int:
    """Return 1 where the interval of the difference to random lies on the good side of 0, -1 on the bad, else 0."""
    difference = summary.against_random[measure] if summary.against_random else None
    if difference is None or difference.low is None or difference.high is None:
        return 0
    good = -1 if measure in LOW_IS_GOOD else 1
    return good if difference.low > 0 else -good if difference.high < 0 else 0


def _table_row(summary: StrategySummary) -> tuple[str, ...]:
    def of(measure: str) -> str:
        return format_mean(summary.measures[measure], measure in SHARES)

    def against(measure: str) -> str:
        if summary.against_random is None:
            return NOT_MEASURED
        return format_mean(summary.against_random[measure], measure in SHARES, signed=True)

    compared = (cell for measure in ("win_rate", *LOW_IS_GOOD) for cell in (of(measure), against(measure)))
    return summary.strategy, *compared, of("clash_rate"), of("pair_accuracy")


def _state_finding(rows: Sequence[StrategySummary], measure: str, name: str, tournament: Tournament) -> str:
    rivals = [row for row in rows if row.strategy != RANDOM]
    if tournament.seeds < 2:
        return f"By {name}: one seed cannot separate the strategies; use more seeds."
    groups = ((1, "better than random"), (-1, "worse"), (0, "not distinguishable from it"))
    parts = (
        f"{', '.join(names)} {said}"
        for side, said in groups
        if (names := [row.strategy for row in rivals if beats_random(row, measure) == side])
    )
    return f"By {name}: {'; '.join(parts) or 'random played alone'}."


def _report_unspent(rows: Sequence[StrategySummary], queries: int) -> Iterator[str]:
    for row in rows:
        if row.spent < queries:
            yield (
                f"{row.strategy} spent {count(round(row.spent))} of {count(queries)} queries on average: "
                "its members agree so often that most of its duels are clashes, which cost nothing."
            )
