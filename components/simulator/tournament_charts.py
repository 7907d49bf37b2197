"""The charts of a tournament, with one line for each strategy."""

from __future__ import annotations

from ..reporting.line_chart import Chart
from ..reporting.svg import MOST_SERIES, SERIES, Axes, Look, draw_svg, level_line, line, over_labels
from ..reporting.table import Column, Table
from ..reporting.words import QUERIES, count, percent
from .duels import RANDOM
from .tournament import SeedCurve, Tournament, measure_curve, measure_difference
from .tournament_table import format_mean

_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
_MARKS = ("━━", "╍╍", "┅┅", "━╍")
"""The same as text, so that the key can be read without colours."""


def draw_tournament(tournament: Tournament) -> list[Chart]:
    """Draw who is better, by how much, and at what price."""

    def curves(measure: str) -> dict[str, SeedCurve]:
        return {strategy: measure_curve(tournament, strategy, measure) for strategy in tournament.strategies}

    ahead = {name: measure_difference(tournament, name, "win_rate") for name in tournament.strategies if name != RANDOM}
    colors = {strategy: place for place, strategy in enumerate(tournament.strategies)}
    charts = [
        _draw_chart("win-rate", "Win rate, held out", curves("win_rate"), colors, share=True),
        _draw_chart("simple-regret", "Simple regret, held out", curves("simple_regret"), colors),
        _draw_chart("duel-regret", "Regret of a round’s duels", curves("duel_regret"), colors),
    ]
    if ahead:
        title = "Win rate above random’s, in points"
        charts.insert(1, _draw_chart("ahead", title, ahead, colors, share=True, signed=True))
    return charts


def _draw_chart(
    name: str,
    title: str,
    curves: dict[str, SeedCurve],
    colors: dict[str, int],
    share: bool = False,
    signed: bool = False,
) -> Chart:
    ends = {strategy: format_mean(points[-1][1], share, signed) for strategy, points in curves.items()}
    return Chart(
        name=name,
        title=title,
        key=tuple(
            (f"series-{_color_index(colors[strategy])}", f"{_sign_of(colors[strategy])} {strategy}")
            for strategy in curves
        ),
        label=f"Line chart over oracle queries. {title}: "
        f"{'; '.join(f'{strategy} ends at {end}' for strategy, end in ends.items())}.",
        svg=draw_svg(name, lambda axes: _paint_axes(axes, curves, colors, share, signed)),
        table=Table(
            (
                Column("Queries", tuple(queries for queries, _ in next(iter(curves.values()))), count),
                *(
                    Column(strategy, tuple(format_mean(value, share, signed) for _, value in points))
                    for strategy, points in curves.items()
                ),
            )
        ),
    )


def _paint_axes(axes: Axes, curves: dict[str, SeedCurve], colors: dict[str, int], share: bool, signed: bool) -> None:
    for strategy, points in curves.items():
        _paint_curve(axes, points, SERIES[_color_index(colors[strategy])], _DASHES[colors[strategy] % len(_DASHES)])
    over_labels(axes, [queries for queries, _ in next(iter(curves.values()))], QUERIES.axis)
    if signed:
        level_line(axes, 0)
    if share:
        axes.yaxis.set_major_formatter(lambda value, _: _format_points(value) if signed else percent(value))


def _paint_curve(axes: Axes, points: SeedCurve, color: str, dashes: object) -> None:
    labels, values = zip(*points, strict=True)
    bounds = [(value.low, value.high) for value in values if value.low is not None and value.high is not None]
    if bounds:
        lows, highs = zip(*bounds, strict=True)
        axes.fill_between(labels, lows, highs, color=color, alpha=0.12, linewidth=0)
    line(axes, labels, [value.mean for value in values], Look(color, "o" if len(labels) == 1 else "", dashes, ""))


def _format_points(difference: float) -> str:
    """0.025 is +2.5, and 0 is 0."""
    return f"{100 * difference:+.3g}" if difference else "0"


def _color_index(place: int) -> int:
    return place % MOST_SERIES


def _sign_of(place: int) -> str:
    return _MARKS[place % len(_MARKS)]
