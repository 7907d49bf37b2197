"""What a chart is, and the one way to draw curves over labels: values, their intervals, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor

from markupsafe import Markup

from ..statistics.intervals import Estimate
from .curves import RoundRow
from .svg import Axes, Look, draw_band, draw_svg, end_labels, level_line, line, over_labels
from .table import Column, Table
from .words import Unit, count, percent, rounded


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, the key to its colours (CSS class, text), what it says in words, and its numbers as a table.

    `note`: what must be known to read it.
    """

    name: str
    title: str
    key: tuple[tuple[str, str], ...]
    label: str
    svg: Markup
    table: Table
    note: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """A value after `at` labels, and its 95% interval where it is an estimate."""

    at: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in the order of their labels, how they look, and what the key calls them. `banded`: with a filled band."""

    text: str
    look: Look
    points: tuple[Point, ...]
    banded: bool = True


@dataclass(frozen=True, slots=True)
class Scale:
    """How values are written, where a dashed line lies and what it means, and the least that the axis spans."""

    shown: Callable[[float | None], str]
    even: float | None = None
    meaning: str = ""
    least: tuple[float, float] | None = None


EVEN = Scale(percent, 0.5, "50%: even", (0.4, 0.6))
CHANCE = Scale(percent, 0.5, "50%: chance", (0.4, 0.6))
PART = Scale(percent, least=(0.0, 0.1))
NUMBER = Scale(rounded)
AMOUNT = Scale(rounded, least=(0.0, 0.0))
SIGNED = Scale(rounded, 0.0, "0")


def curve_chart(
    name: str,
    title: str,
    curves: Sequence[Curve],
    unit: Unit,
    scale: Scale,
    table: Table,
    label: str = "",
    note: str = "",
) -> Chart:
    """Draw curves over labels, each with its intervals where it has some. `label`: what is drawn, in words."""
    told = "; ".join(draw_course(curve, unit, scale) for curve in curves)
    dashed = f" A dashed line marks {scale.meaning}." if scale.meaning else ""
    return Chart(
        name=name,
        title=title,
        key=(
            *((curve.look.css, f"{curve.look.sign} {curve.text}") for curve in curves),
            *([("plain", f"- - {scale.meaning}")] if scale.meaning else []),
        ),
        label=f"Line chart of {label or title.lower()} over {unit.many}: {told}.{dashed}",
        svg=draw_svg(name, lambda axes: _paint_axes(axes, curves, unit, scale)),
        table=table,
        note=note,
    )


def draw_course(curve: Curve, unit: Unit, scale: Scale) -> str:
    """Say where a curve begins and ends."""
    first, last = curve.points[0], curve.points[-1]
    return (
        f"{curve.text} {scale.shown(first.value)} after {unit.said(first.at)}, "
        f"{scale.shown(last.value)}{_format_interval(last, scale)} after {count(last.at)}"
    )


def over_rounds(rows: Sequence[RoundRow], *columns: Column) -> Table:
    """Put round and labels before columns that have one value a row."""
    labels = Column(rows[0].unit.many.capitalize(), tuple(row.learned_from for row in rows), count)
    return Table((Column("Round", tuple(row.round for row in rows)), labels, *columns))


def draw_estimate(
    name: str, estimates: Sequence[Estimate | None], shown: Callable[[float | None], str]
) -> list[Column]:
    """Return three columns: the values, and both ends of their intervals."""
    parts = {name: "value", "95% from": "low", "to": "high"}
    return [
        Column(head, tuple(None if found is None else getattr(found, part) for found in estimates), shown)
        for head, part in parts.items()
    ]


def points_of(rows: Sequence[RoundRow], estimates: Sequence[Estimate | None]) -> tuple[Point, ...]:
    """Place what was estimated in each row after the labels of that row; a row without an estimate has no point."""
    return tuple(
        Point(row.learned_from, found.value, found.low, found.high)
        for row, found in zip(rows, estimates, strict=True)
        if found is not None
    )


def plain_points(
    rows: Sequence[RoundRow],
    values: Sequence[float | None],
    intervals: Sequence[tuple[float, float] | None] | None = None,
) -> tuple[Point, ...]:
    """Place values that are no estimates, or that are not all estimates with an interval."""
    between = [None] * len(rows) if intervals is None else intervals
    return tuple(
        Point(row.learned_from, value, *(ends or ()))
        for row, value, ends in zip(rows, values, between, strict=True)
        if value is not None
    )


def _paint_axes(axes: Axes, curves: Sequence[Curve], unit: Unit, scale: Scale) -> None:
    if scale.even is not None:
        level_line(axes, scale.even)
    for curve in curves:
        _paint_curve(axes, curve)
    over_labels(axes, [point.at for curve in curves for point in curve.points], unit.axis)
    if scale.least is not None:
        axes.set_ylim(*_axis_limits([point for curve in curves for point in curve.points], scale))
    axes.yaxis.set_major_formatter(lambda value, _: scale.shown(value) if scale.shown is percent else f"{value:g}")
    ends = [(curve.points[-1].at, curve.points[-1].value) for curve in curves]
    texts = [scale.shown(value) for _, value in ends]
    end_labels(axes, ends, texts, [curve.look.color for curve in curves])


def _paint_curve(axes: Axes, curve: Curve) -> None:
    known = [(point.at, point.low, point.high) for point in curve.points if None not in (point.low, point.high)]
    if known:
        places, lows, highs = zip(*known, strict=True)
        draw_band(axes, places, lows, highs, curve.look.color, filled=curve.banded)
    line(axes, [point.at for point in curve.points], [point.value for point in curve.points], curve.look)


def _axis_limits(points: Sequence[Point], scale: Scale) -> tuple[float, float]:
    """Span the least that the scale asks for and all intervals, to the next tenth of shares."""
    assert scale.least is not None
    low = min(point.value if point.low is None else point.low for point in points)
    high = max(point.value if point.high is None else point.high for point in points)
    if scale.shown is percent:
        return min(scale.least[0], floor(low * 10) / 10), max(scale.least[1], ceil(high * 10) / 10)
    return min(scale.least[0], low), max(scale.least[1], high * 1.15) or 1.0


def _format_interval(point: Point, scale: Scale) -> str:
    if point.low is None or point.high is None:
        return ""
    return f" (95% interval {scale.shown(point.low)} to {scale.shown(point.high)})"
