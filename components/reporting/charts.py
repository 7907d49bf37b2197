"""Rows to charts: each a drawing, what it says in words, and the numbers behind it. Of exploration: see its own."""

from __future__ import annotations

from collections.abc import Sequence

from ..ledger.layout import STEPS
from .chart import Chart, course, draw_shares, head, when
from .curves import RoundRow
from .drawing import DASHED, DOTTED, MUTED, OPPONENT, POLICY, Axes, bars, draw, end_label, line, over_labels
from .exploration_charts import exploration_charts
from .words import NOT_MEASURED, count, percent, rounded, seconds


def charts(rows: Sequence[RoundRow], opponent: str) -> list[Chart]:
    """Draw every chart that the rows have numbers for. `opponent`: who the policy is compared with, in words."""
    drawn = (
        win_rate_chart(rows, opponent), held_out_chart(rows), reward_chart(rows, opponent),
        *exploration_charts(rows, opponent), margin_chart(rows), seconds_chart(rows),
    )  # fmt: skip
    return [chart for chart in drawn if chart is not None]


def win_rate_chart(rows: Sequence[RoundRow], opponent: str) -> Chart | None:
    """Draw the win rate with its 95% interval, or None where nothing was evaluated."""
    points = [
        (row.learned_from, row.win_rate, row.low, row.high, row)
        for row in rows
        if row.win_rate is not None and row.low is not None and row.high is not None
    ]
    if not points:
        return None
    labels, rates, lows, highs, judged = zip(*points, strict=True)
    unit = rows[0].unit
    return Chart(
        name="win-rate",
        title="Win rate with its 95% interval",
        key=(("policy", f"● against {opponent}"), ("plain", "- - 50%: even")),
        label=f"Line chart of the win rate over {unit.many}: {course(labels, rates, lows, highs, unit)}",
        svg=draw("win-rate", lambda axes: draw_shares(axes, labels, rates, lows, highs, unit)),
        head=(*head(unit), "Win rate", "95% from", "to", "Held-out prompts"),
        body=tuple(
            (*when(row), percent(row.win_rate), percent(row.low), percent(row.high), count(row.held_out))
            for row in judged
        ),
    )


def held_out_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the accuracy on held-out preferences with its 95% interval, or None where there are none."""
    points = [
        (row.learned_from, row.held_out_accuracy, *row.held_out_interval, row)
        for row in rows
        if row.held_out_accuracy is not None and row.held_out_interval is not None
    ]
    if not points:
        return None
    labels, shares, lows, highs, ranked = zip(*points, strict=True)
    unit = rows[0].unit
    return Chart(
        name="held-out",
        title="Held-out accuracy with its 95% interval",
        key=(("policy", "● pairs ranked as in the set"), ("plain", "- - 50%: chance")),
        label=f"Line chart of the accuracy on held-out preferences over {unit.many}: "
        f"{course(labels, shares, lows, highs, unit)}",
        svg=draw("held-out", lambda axes: draw_shares(axes, labels, shares, lows, highs, unit)),
        head=(*head(unit), "Accuracy", "95% from", "to", "Margin", "Held-out pairs"),
        body=tuple(
            (*when(row), *map(percent, (share, low, high)), rounded(row.held_out_margin), count(row.held_out_pairs))
            for row, share, low, high in zip(ranked, shares, lows, highs, strict=True)
        ),
    )


def reward_chart(rows: Sequence[RoundRow], opponent: str) -> Chart | None:
    """Draw the mean known reward of the policy's and the opponent's held-out answers, or None where there is none."""
    points = [
        (row.learned_from, row.mean_reward, row.opponent_mean_reward, row)
        for row in rows
        if row.mean_reward is not None and row.opponent_mean_reward is not None
    ]
    if not points:
        return None
    labels, own, others, judged = zip(*points, strict=True)
    unit = rows[0].unit

    def paint(axes: Axes) -> None:
        line(axes, labels, others, OPPONENT, "s", DOTTED)
        line(axes, labels, own, POLICY, "o")
        apart = 5 if own[-1] >= others[-1] else -5
        end_label(axes, (labels[-1], own[-1]), rounded(own[-1]), POLICY, apart)
        end_label(axes, (labels[-1], others[-1]), rounded(others[-1]), OPPONENT, -apart)
        over_labels(axes, labels, unit.axis)

    return Chart(
        name="reward",
        title="Mean reward of held-out answers",
        key=(("policy", "● policy"), ("opponent", f"■ {opponent}")),
        label=f"Line chart of the mean reward of held-out answers: the policy's goes from {rounded(own[0])} to "
        f"{rounded(own[-1])} after {unit.said(labels[-1])}, the opponent's is {rounded(others[-1])} there.",
        svg=draw("reward", paint),
        head=(*head(unit), "Policy", "Opponent"),
        body=tuple((*when(row), rounded(row.mean_reward), rounded(row.opponent_mean_reward)) for row in judged),
    )


def margin_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the mean reward margin of each round's pairs, or None where nothing was learned."""
    points = [(row.learned_from, row.reward_margin, row) for row in rows if row.reward_margin is not None]
    if not points:
        return None
    labels, margins, learned = zip(*points, strict=True)
    unit = rows[0].unit

    def paint(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, linewidth=1, linestyle=DASHED)
        line(axes, labels, margins, POLICY, "o")
        end_label(axes, (labels[-1], margins[-1]), rounded(margins[-1]), POLICY)
        over_labels(axes, labels, unit.axis)

    return Chart(
        name="margin",
        title="Reward margin in training",
        key=(("policy", "● chosen minus rejected"),),
        label=f"Line chart of the mean reward margin of a round's pairs: from {rounded(margins[0])} to "
        f"{rounded(margins[-1])} after {unit.said(labels[-1])}.",
        svg=draw("margin", paint),
        head=(*head(unit), "Loss", "Margin", "Accuracy"),
        body=tuple(
            (*when(row), rounded(row.loss), rounded(row.reward_margin), percent(row.accuracy)) for row in learned
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


def _mean_seconds(rows: Sequence[RoundRow], step: str) -> tuple[float, float]:
    taken = [row.seconds[step] for row in rows if step in row.seconds]
    startup, work = (sum(parts) / len(taken) for parts in zip(*taken, strict=True))
    return startup, work


def _sum(taken: tuple[float, float] | None) -> str:
    return NOT_MEASURED if taken is None else f"{seconds(taken[0])} + {seconds(taken[1])}"
