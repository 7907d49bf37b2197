"""Rows to charts, in the groups in which a page shows them. Of exploration: see its own module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ledger.layout import STEPS
from ..statistics.intervals import Estimate
from .curves import RoundRow
from .exploration_charts import exploration_charts
from .foretold import Foretold
from .line_chart import (
    CHANCE,
    EVEN,
    NUMBER,
    SIGNED,
    Chart,
    Curve,
    curve_chart,
    draw_estimate,
    over_rounds,
    plain_points,
    points_of,
)
from .svg import OF_EQUAL_LENGTH, OF_OPPONENT, OF_POLICY, draw_bars, draw_svg
from .table import Column, Table
from .words import NOT_MEASURED, count, percent, rounded, seconds

ALL_PAIRS = "Means over the pairs of a round; each pair is measured before the step that learns from it."


@dataclass(frozen=True, slots=True)
class Charts:
    """The charts of an experiment: of its answers, its duels, its training, its time. A group may be empty."""

    answers: tuple[Chart, ...]
    duels: tuple[Chart, ...]
    training: tuple[Chart, ...]
    time: tuple[Chart, ...]

    @property
    def all(self) -> tuple[Chart, ...]:
        """All of them, in the order of the page."""
        return self.answers + self.duels + self.training + self.time


def draw_charts(rows: Sequence[RoundRow], opponent: str, foretold: Foretold | None = None) -> Charts:
    """Draw every chart that the rows have numbers for. `opponent`: who the policy is compared with, in words."""
    return Charts(
        _drop_missing(win_rate_chart(rows, opponent), length_chart(rows, opponent), reward_chart(rows, opponent),
               held_out_chart(rows)),
        _drop_missing(*exploration_charts(rows, opponent, foretold)),
        _drop_missing(margin_chart(rows), logprob_chart(rows)),
        _drop_missing(seconds_chart(rows)),
    )  # fmt: skip


def win_rate_chart(rows: Sequence[RoundRow], opponent: str) -> Chart | None:
    """Draw the win rate and the one at equal length, with 95% intervals, or None where nothing was evaluated."""
    judged = [row for row in rows if row.win_rate is not None and row.low is not None and row.high is not None]
    if not judged:
        return None
    raw = [_estimate_of(row.win_rate, row.low, row.high) for row in judged]
    equal = [row.answers.length_controlled if row.answers else None for row in judged]
    curves = [Curve(f"against {opponent}", OF_POLICY, points_of(judged, raw))]
    if any(equal):
        curves.append(Curve("at equal length", OF_EQUAL_LENGTH, points_of(judged, equal), banded=False))
    columns = [*draw_estimate("Win rate", raw, percent)]
    if any(equal):
        columns += draw_estimate("At equal length", equal, percent)
    columns += [Column("Held-out prompts", tuple(row.held_out for row in judged), count), *_sign_tests(judged)]
    return curve_chart(
        "win-rate", "Win rate with its 95% interval", curves, rows[0].unit, EVEN, over_rounds(judged, *columns),
        label="the win rate",
    )  # fmt: skip


def length_chart(rows: Sequence[RoundRow], opponent: str) -> Chart | None:
    """Draw the length of the held-out answers and of the opponent's, or None where it was not measured."""
    judged = [row for row in rows if row.answers is not None]
    told = [row.answers for row in judged if row.answers is not None]
    if not told:
        return None
    own, other = [one.tokens for one in told], [one.opponent_tokens for one in told]
    return curve_chart(
        "length", "Length of held-out answers, in tokens",
        [Curve(opponent, OF_OPPONENT, points_of(judged, other), banded=False),
         Curve("policy", OF_POLICY, points_of(judged, own))],
        rows[0].unit, NUMBER,
        over_rounds(
            judged, *draw_estimate("Policy", own, rounded), *draw_estimate("Opponent", other, rounded),
            *draw_estimate("Difference", [one.longer for one in told], rounded),
            Column("Held-out prompts", tuple(one.prompts for one in told), count),
        ),
        label="the mean length of held-out answers in tokens",
        note="If the win rate rises with the length, length may explain it: look at the win rate at equal length.",
    )  # fmt: skip


def held_out_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the accuracy on held-out preferences with its 95% interval, or None where there are none."""
    ranked = [row for row in rows if row.held_out_accuracy is not None and row.held_out_interval is not None]
    if not ranked:
        return None
    shares = [_estimate_of(row.held_out_accuracy, *(row.held_out_interval or ())) for row in ranked]
    return curve_chart(
        "held-out", "Held-out accuracy with its 95% interval",
        [Curve("pairs ranked as in the set", OF_POLICY, points_of(ranked, shares))], rows[0].unit, CHANCE,
        over_rounds(
            ranked, *draw_estimate("Accuracy", shares, percent),
            Column("Margin", tuple(row.held_out_margin for row in ranked), rounded),
            Column("Held-out pairs", tuple(row.held_out_pairs for row in ranked), count),
        ),
        label="the accuracy on held-out preferences",
    )  # fmt: skip


def reward_chart(rows: Sequence[RoundRow], opponent: str) -> Chart | None:
    """Draw the mean known reward of the policy's and the opponent's held-out answers, or None where there is none."""
    known = [row for row in rows if row.mean_reward is not None and row.opponent_mean_reward is not None]
    if not known:
        return None
    own = [row.answers.reward if row.answers else None for row in known]
    other = [row.answers.opponent_reward if row.answers else None for row in known]
    if not all((*own, *other)):
        # Rows that come without their verdicts have no intervals.
        ours, theirs = ([getattr(row, name) for row in known] for name in ("mean_reward", "opponent_mean_reward"))
        points = plain_points(known, theirs), plain_points(known, ours)
        columns = [Column("Policy", tuple(ours), rounded), Column("Opponent", tuple(theirs), rounded)]
    else:
        points = points_of(known, other), points_of(known, own)
        columns = [*draw_estimate("Policy", own, rounded), *draw_estimate("Opponent", other, rounded)]
    curves = [Curve(opponent, OF_OPPONENT, points[0], banded=False), Curve("policy", OF_POLICY, points[1])]
    return curve_chart(
        "reward", "Mean reward of held-out answers", curves, rows[0].unit, NUMBER, over_rounds(known, *columns)
    )


def margin_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the mean reward margin of each round's pairs, or None where nothing was learned."""
    learned = [row for row in rows if row.reward_margin is not None]
    if not learned:
        return None
    margins = [row.reward_margin for row in learned]
    return curve_chart(
        "margin", "Reward margin in training",
        [Curve("chosen minus rejected", OF_POLICY, plain_points(learned, margins))], rows[0].unit, SIGNED,
        over_rounds(
            learned, Column("Loss", tuple(row.loss for row in learned), rounded),
            Column("Margin", tuple(margins), rounded),
            Column("Accuracy", tuple(row.accuracy for row in learned), percent),
            Column("Pairs", tuple(row.pairs for row in learned), count),
        ),
        label="the mean reward margin of a round’s pairs", note=ALL_PAIRS,
    )  # fmt: skip


def logprob_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the log-probability of chosen and rejected answers, or None where it was not measured."""
    learned = [row for row in rows if row.chosen_logprob is not None and row.rejected_logprob is not None]
    if not learned:
        return None
    chosen, rejected = [row.chosen_logprob for row in learned], [row.rejected_logprob for row in learned]
    return curve_chart(
        "logprobs", "Log-probability of the answers in training",
        [Curve("rejected", OF_OPPONENT, plain_points(learned, rejected)),
         Curve("chosen", OF_POLICY, plain_points(learned, chosen))],
        rows[0].unit, NUMBER,
        over_rounds(
            learned, Column("Chosen", tuple(chosen), rounded), Column("Rejected", tuple(rejected), rounded),
            Column("Pairs", tuple(row.pairs for row in learned), count),
        ),
        label="the mean log-probability of whole answers",
        note=f"{ALL_PAIRS} Where both fall, the policy moves away from both answers.",
    )  # fmt: skip


def seconds_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the mean seconds that each step took, start-up apart from work, or None before the first round ended."""
    means = [(step, *_mean_seconds(rows, step)) for step in STEPS.values() if any(step in row.seconds for row in rows)]
    if not means:
        return None
    steps, startups, works = zip(*means, strict=True)
    labels = [_format_seconds(taken) for taken in zip(startups, works, strict=True)]
    parts = (f"{step} {seconds(startup)} of start-up and {seconds(work)} of work" for step, startup, work in means)
    return Chart(
        name="seconds",
        title="Seconds per step",
        key=(("policy", "□ start-up"), ("policy", "■ work"), ("plain", "mean over rounds")),
        label=f"Bar chart of the mean seconds that each step took: {'; '.join(parts)}.",
        svg=draw_svg("seconds", lambda axes: draw_bars(axes, steps, startups, works, labels), 14 + 42 * len(steps)),
        table=Table((Column("Round", tuple(row.round for row in rows)), *_seconds_columns(rows, steps))),
    )


def _seconds_columns(rows: Sequence[RoundRow], steps: Sequence[str]) -> list[Column]:
    columns = []
    for step in steps:
        taken = [row.seconds.get(step) for row in rows]
        for place, part in enumerate(("start-up", "work")):
            values = tuple(None if one is None else one[place] for one in taken)
            columns.append(Column(f"{step.capitalize()}, {part}", values, seconds))
    return columns


def _sign_tests(rows: Sequence[RoundRow]) -> list[Column]:
    if not all(row.answers for row in rows):
        return []
    p_values = tuple(row.answers.p_value if row.answers else None for row in rows)
    decided = tuple(row.answers.decided if row.answers else None for row in rows)
    return [Column("Sign test, p", p_values, rounded), Column("Decided prompts", decided, count)]


def _estimate_of(value: float | None, low: float | None = None, high: float | None = None) -> Estimate | None:
    return None if value is None or low is None or high is None else Estimate(value, low, high)


def _drop_missing(*found: Chart | None) -> tuple[Chart, ...]:
    return tuple(chart for chart in found if chart is not None)


def _mean_seconds(rows: Sequence[RoundRow], step: str) -> tuple[float, float]:
    taken = [row.seconds[step] for row in rows if step in row.seconds]
    startup, work = (sum(parts) / len(taken) for parts in zip(*taken, strict=True))
    return startup, work


def _format_seconds(taken: tuple[float, float] | None) -> str:
    return NOT_MEASURED if taken is None else f"{seconds(taken[0])} + {seconds(taken[1])}"
