"""Rows to charts: each a drawing, what it says in words, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from markupsafe import Markup

from .curves import STEPS, RoundRow
from .drawing import DASHED, DOTTED, MUTED, OPPONENT, POLICY, Axes, bars, draw, end_label, line, over_queries
from .words import NOT_MEASURED, count, percent, rounded, seconds

Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, the key to its colours (CSS class, text), what it says in words, and its numbers as a table."""

    name: str
    title: str
    key: tuple[tuple[str, str], ...]
    label: str
    svg: Markup
    head: Cells
    body: tuple[Cells, ...]


def charts(rows: Sequence[RoundRow], opponent: str) -> list[Chart]:
    """Draw every chart that the rows have numbers for. `opponent`: who the policy is compared with, in words."""
    drawn = (win_rate_chart(rows, opponent), reward_chart(rows, opponent), margin_chart(rows), seconds_chart(rows))
    return [chart for chart in drawn if chart is not None]


def win_rate_chart(rows: Sequence[RoundRow], opponent: str) -> Chart | None:
    """Draw the win rate over queries with its 95% interval, or None where nothing was evaluated."""
    points = [
        (row.queries_total, row.win_rate, row.low, row.high, row)
        for row in rows
        if row.win_rate is not None and row.low is not None and row.high is not None
    ]
    if not points:
        return None
    queries, rates, lows, highs, judged = zip(*points, strict=True)

    def paint(axes: Axes) -> None:
        axes.axhline(0.5, color=MUTED, linewidth=1, linestyle=DASHED)
        axes.fill_between(queries, lows, highs, color=POLICY, alpha=0.16, linewidth=0)
        axes.vlines(queries, lows, highs, color=POLICY, linewidth=1.2, alpha=0.55)
        line(axes, queries, rates, POLICY, "o")
        end_label(axes, (queries[-1], rates[-1]), percent(rates[-1]), POLICY)
        over_queries(axes, queries)
        axes.set_ylim(min(0.4, floor(min(lows) * 10) / 10), max(0.6, ceil(max(highs) * 10) / 10))
        axes.yaxis.set_major_formatter(lambda value, _: percent(value))

    return Chart(
        name="win-rate",
        title="Win rate with its 95% interval",
        key=(("policy", f"● against {opponent}"), ("plain", "- - 50%: even")),
        label=f"Line chart of the win rate over queries: {percent(rates[0])} after {queries[0]} queries, "
        f"{percent(rates[-1])} (95% interval {percent(lows[-1])} to {percent(highs[-1])}) after {queries[-1]}. "
        "A dashed line marks 50%.",
        svg=draw("win-rate", paint),
        head=("Round", "Queries", "Win rate", "95% from", "to", "Held-out prompts"),
        body=tuple(
            (*_when(row), percent(row.win_rate), percent(row.low), percent(row.high), count(row.held_out))
            for row in judged
        ),
    )


def reward_chart(rows: Sequence[RoundRow], opponent: str) -> Chart | None:
    """Draw the mean known reward of the policy's and the opponent's held-out answers, or None where there is none."""
    points = [
        (row.queries_total, row.mean_reward, row.opponent_mean_reward, row)
        for row in rows
        if row.mean_reward is not None and row.opponent_mean_reward is not None
    ]
    if not points:
        return None
    queries, own, others, judged = zip(*points, strict=True)

    def paint(axes: Axes) -> None:
        line(axes, queries, others, OPPONENT, "s", DOTTED)
        line(axes, queries, own, POLICY, "o")
        apart = 5 if own[-1] >= others[-1] else -5
        end_label(axes, (queries[-1], own[-1]), rounded(own[-1]), POLICY, apart)
        end_label(axes, (queries[-1], others[-1]), rounded(others[-1]), OPPONENT, -apart)
        over_queries(axes, queries)

    return Chart(
        name="reward",
        title="Mean reward of held-out answers",
        key=(("policy", "● policy"), ("opponent", f"■ {opponent}")),
        label=f"Line chart of the mean reward of held-out answers: the policy's goes from {rounded(own[0])} to "
        f"{rounded(own[-1])} after {queries[-1]} queries, the opponent's is {rounded(others[-1])} there.",
        svg=draw("reward", paint),
        head=("Round", "Queries", "Policy", "Opponent"),
        body=tuple((*_when(row), rounded(row.mean_reward), rounded(row.opponent_mean_reward)) for row in judged),
    )


def margin_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the mean reward margin of each round's pairs, or None where nothing was learned."""
    points = [(row.queries_total, row.reward_margin, row) for row in rows if row.reward_margin is not None]
    if not points:
        return None
    queries, margins, learned = zip(*points, strict=True)

    def paint(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, linewidth=1, linestyle=DASHED)
        line(axes, queries, margins, POLICY, "o")
        end_label(axes, (queries[-1], margins[-1]), rounded(margins[-1]), POLICY)
        over_queries(axes, queries)

    return Chart(
        name="margin",
        title="Reward margin in training",
        key=(("policy", "● chosen minus rejected"),),
        label=f"Line chart of the mean reward margin of a round's pairs: from {rounded(margins[0])} to "
        f"{rounded(margins[-1])} after {queries[-1]} queries.",
        svg=draw("margin", paint),
        head=("Round", "Queries", "Loss", "Margin", "Accuracy"),
        body=tuple(
            (*_when(row), rounded(row.loss), rounded(row.reward_margin), percent(row.accuracy)) for row in learned
        ),
    )


def seconds_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the mean seconds that each step took, start-up apart from work, or None before the first round ended."""
    means = [(step, *_mean_seconds(rows, step)) for step in STEPS.values() if any(step in row.seconds for row in rows)]
    if not means:
        return None
    steps, startups, works = zip(*means, strict=True)
    labels = [_sum(taken) for taken in zip(startups, works, strict=True)]
    parts = (f"{step} {seconds(startup)} of start-up and {seconds(work)} of work" for step, startup, work in means)
    return Chart(
        name="seconds",
        title="Seconds per step",
        key=(("policy", "□ start-up"), ("policy", "■ work"), ("plain", "mean over rounds")),
        label=f"Bar chart of the mean seconds that each step took: {'; '.join(parts)}.",
        svg=draw("seconds", lambda axes: bars(axes, steps, startups, works, labels), 14 + 42 * len(steps)),
        head=("Round", *steps),
        body=tuple((str(row.round), *(_sum(row.seconds.get(step)) for step in steps)) for row in rows),
    )


def _when(row: RoundRow) -> Cells:
    return str(row.round), count(row.queries_total)


def _mean_seconds(rows: Sequence[RoundRow], step: str) -> tuple[float, float]:
    taken = [row.seconds[step] for row in rows if step in row.seconds]
    startup, work = (sum(parts) / len(taken) for parts in zip(*taken, strict=True))
    return startup, work


def _sum(taken: tuple[float, float] | None) -> str:
    return NOT_MEASURED if taken is None else f"{seconds(taken[0])} + {seconds(taken[1])}"
