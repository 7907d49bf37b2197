"""A report in words: one sentence, how far to trust it, a table of rounds, and a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from .curves import RoundRow
from .report import Report
from .words import count, duration, interval, percent, rounded

_COLUMNS = (
    "Round", "Queries", "Win rate", "95% interval", "Reward", "Opponent's", "Pairs", "Clashes", "Loss", "Margin",
    "Time",
)  # fmt: skip


def headline(report: Report) -> str:
    """Return the result in one sentence, never without its interval, its prompts and its judge."""
    if not report.rows:
        return "No round is finished yet, so there is nothing to report."
    spent, row = report.rows[-1].queries_total, report.evaluated
    if row is None:
        return f"After {_queries(spent)} nothing has been evaluated yet, so there is no win rate to report."
    prompts = "the" if row.held_out is None else f"{row.held_out:,}"
    return (
        f"After {_queries(row.queries_total)} the policy wins {percent(row.win_rate)} {interval(row.low, row.high)} of "
        f"{prompts} held-out prompts against {report.opponent}, judged by {report.oracle}."
    )


def reading(report: Report) -> str:
    """Say what the interval allows to conclude, and what it does not."""
    row = report.evaluated
    if row is None or row.low is None or row.high is None:
        return ""
    limits = "The brackets are a 95% interval over these prompts; it says nothing about other seeds or other judges."
    if row.low > 0.5:
        return f"All of the interval lies above 50%: the policy is better than {report.opponent}. {limits}"
    if row.high < 0.5:
        return f"All of the interval lies below 50%: the policy is worse than {report.opponent}. {limits}"
    return (
        f"The interval includes 50%: the policy cannot be told apart from {report.opponent} yet. More rounds may move "
        f"it; more held-out prompts make it narrower. {limits}"
    )


def summary_table(rows: Sequence[RoundRow]) -> list[list[str]]:
    """Return the table of rounds as text, its head first."""
    return [list(_COLUMNS), *(_line(row) for row in rows)]


def page_markdown(report: Report) -> str:
    """Return the report in short: the sentence, how to read it, the rounds."""
    head, *lines = summary_table(report.rows)
    table = [_markdown_row(head), "|" + " ---: |" * len(head), *map(_markdown_row, lines)]
    parts = [f"# {report.name}", headline(report), reading(report), "\n".join(table) if lines else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def wall_seconds(row: RoundRow) -> float:
    """Return the seconds that a round's steps took together."""
    return sum(startup + work for startup, work in row.seconds.values())


def _line(row: RoundRow) -> list[str]:
    return [
        str(row.round), count(row.queries_total), percent(row.win_rate), interval(row.low, row.high),
        rounded(row.mean_reward), rounded(row.opponent_mean_reward), count(row.pairs), count(row.clashes),
        rounded(row.loss), rounded(row.reward_margin), duration(wall_seconds(row)),
    ]  # fmt: skip


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _queries(spent: int) -> str:
    return "1 query" if spent == 1 else f"{spent:,} queries"
