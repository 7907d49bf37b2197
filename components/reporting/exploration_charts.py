"""Charts of what a round's exploration was worth: regret, online win rate, foresight, uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

from .chart import Chart, course, draw_shares, head, when
from .curves import RoundRow
from .drawing import DOTTED, MUTED, POLICY, SERIES, Axes, draw, end_label, line, over_labels
from .words import count, percent, rounded

RECOMMENDED = 3
"""Which of the colours of many lines is that of what the ensemble would choose."""


def exploration_charts(rows: Sequence[RoundRow], opponent: str) -> list[Chart | None]:
    """Draw what is known of the rounds' exploration; None for what is not."""
    return [
        regret_chart(rows),
        online_chart(rows, opponent),
        foresight_chart(rows),
        uncertainty_chart(rows),
    ]


def regret_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the mean regret of the rounds' duels, and of the ensemble's own choice where it has one."""
    points = [(row.learned_from, row.explored.duel_regret, row) for row in rows if row.explored.duel_regret is not None]
    if not points:
        return None
    labels, duels, known = zip(*points, strict=True)
    picked = [(row.learned_from, row.explored.simple_regret) for row in known]
    recommended = [(at, regret) for at, regret in picked if regret is not None]
    unit, explored, color = rows[0].unit, known[-1].explored, SERIES[RECOMMENDED]
    total = "" if explored.regret_total is None else f", {rounded(explored.regret_total)} in the sum over all duels"
    choice = f"; that of the ensemble's choice is {rounded(recommended[-1][1])} there" if recommended else ""

    def paint(axes: Axes) -> None:
        if recommended:
            places, values = zip(*recommended, strict=True)
            line(axes, places, values, color, "s", DOTTED)
            end_label(axes, recommended[-1], rounded(values[-1]), color, 5 if values[-1] > duels[-1] else -5)
        line(axes, labels, duels, POLICY, "o")
        shift = 0 if not recommended else -5 if recommended[-1][1] > duels[-1] else 5
        end_label(axes, (labels[-1], duels[-1]), rounded(duels[-1]), POLICY, shift)
        over_labels(axes, labels, unit.axis)
        axes.set_ylim(bottom=0)

    return Chart(
        name="regret",
        title="Regret within the candidates",
        key=(
            ("policy", "● both answers of a duel"),
            *([(f"series-{RECOMMENDED}", "■ the ensemble’s choice")] if recommended else []),
            ("plain", "mean over a round; 0: the best candidate"),
        ),
        label=f"Line chart of the mean regret of a round's duels: from {rounded(duels[0])} after "
        f"{unit.said(labels[0])} to {rounded(duels[-1])} after {count(labels[-1])}{total}{choice}.",
        svg=draw("regret", paint),
        head=(*head(unit), "Duels", "Mean regret", "Sum so far", "Ensemble’s choice", "Its mean so far"),
        body=tuple(
            (
                *when(row), count(row.explored.regret_duels), rounded(row.explored.duel_regret),
                rounded(row.explored.regret_total), rounded(row.explored.simple_regret),
                rounded(row.explored.anytime_regret),
            )
            for row in known
        ),
    )  # fmt: skip


def online_chart(rows: Sequence[RoundRow], opponent: str) -> Chart | None:
    """Draw the win rate of both answers of each duel with its 95% interval, or None where it was not measured."""
    points = [
        (row.learned_from, told.online_win_rate, *told.online_interval, row)
        for row in rows
        if (told := row.explored).online_win_rate is not None and told.online_interval is not None
    ]
    if not points:
        return None
    labels, rates, lows, highs, judged = zip(*points, strict=True)
    unit = rows[0].unit
    return Chart(
        name="online-win-rate",
        title="Online win rate with its 95% interval",
        key=(("policy", f"● both answers of a duel against {opponent}"), ("plain", "- - 50%: even")),
        label=f"Line chart of the online win rate over {unit.many}: {course(labels, rates, lows, highs, unit)}",
        svg=draw("online-win-rate", lambda axes: draw_shares(axes, labels, rates, lows, highs, unit)),
        head=(*head(unit), "Online win rate", "95% from", "to", "Duels"),
        body=tuple(
            (*when(row), *map(percent, (rate, low, high)), count(row.explored.online_prompts))
            for row, rate, low, high in zip(judged, rates, lows, highs, strict=True)
        ),
    )


def foresight_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the share of labels that the ensemble foresaw with its 95% interval, or None where it foretold none."""
    points = [
        (row.learned_from, told.rm_accuracy, *told.foresight_interval, row)
        for row in rows
        if (told := row.explored).rm_accuracy is not None and told.foresight_interval is not None
    ]
    if not points:
        return None
    labels, shares, lows, highs, foretold = zip(*points, strict=True)
    unit = rows[0].unit
    return Chart(
        name="foresight",
        title="What the ensemble foresaw",
        key=(("policy", "● labels foreseen, 95% interval"), ("plain", "- - 50%: chance")),
        label=f"Line chart of the share of labels that the ensemble foresaw, over {unit.many}: "
        f"{course(labels, shares, lows, highs, unit)}",
        svg=draw("foresight", lambda axes: draw_shares(axes, labels, shares, lows, highs, unit)),
        head=(*head(unit), "Foreseen", "95% from", "to", "Brier score", "Calibration error", "Labels"),
        body=tuple(
            (
                *when(row), *map(percent, (share, low, high)), rounded(row.explored.rm_brier),
                rounded(row.explored.rm_ece), count(row.explored.rm_foretold),
            )
            for row, share, low, high in zip(foretold, shares, lows, highs, strict=True)
        ),
    )  # fmt: skip


def uncertainty_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw how unsure the ensemble was of the pairs that it picked and of all pairs, or None where nobody knows."""
    points = [
        (row.learned_from, 100 * told.uncertainty_chosen, 100 * told.uncertainty_all, row)
        for row in rows
        if (told := row.explored).uncertainty_chosen is not None and told.uncertainty_all is not None
    ]
    if not points:
        return None
    labels, chosen, everywhere, unsure = zip(*points, strict=True)
    unit = rows[0].unit

    def paint(axes: Axes) -> None:
        line(axes, labels, everywhere, MUTED, "s", DOTTED)
        line(axes, labels, chosen, POLICY, "o")
        apart = 5 if chosen[-1] >= everywhere[-1] else -5
        end_label(axes, (labels[-1], chosen[-1]), rounded(chosen[-1]), POLICY, apart)
        end_label(axes, (labels[-1], everywhere[-1]), rounded(everywhere[-1]), MUTED, -apart)
        over_labels(axes, labels, unit.axis)
        axes.set_ylim(bottom=0)

    return Chart(
        name="uncertainty",
        title="How unsure the ensemble is of a win",
        key=(("policy", "● picked pairs"), ("plain", "■ all pairs"), ("plain", "± percentage points, mean")),
        label="Line chart of the standard deviation, over the ensemble, of a pair's win probability in percentage "
        f"points: of picked pairs from {rounded(chosen[0])} to {rounded(chosen[-1])} after {unit.said(labels[-1])}, "
        f"of all pairs {rounded(everywhere[-1])} there.",
        svg=draw("uncertainty", paint),
        head=(*head(unit), "Picked pairs", "All pairs"),
        body=tuple(
            (*when(row), rounded(picked), rounded(every))
            for row, picked, every in zip(unsure, chosen, everywhere, strict=True)
        ),
    )
