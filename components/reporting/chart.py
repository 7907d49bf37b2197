"""What a chart is, and what charts have in common: when a row was, and shares over labels with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from markupsafe import Markup

from .curves import RoundRow
from .drawing import DASHED, MUTED, POLICY, Axes, end_label, line, over_labels
from .words import Unit, count, percent

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


def draw_shares(
    axes: Axes,
    labels: Sequence[int],
    shares: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    unit: Unit,
) -> None:
    """Draw shares with their intervals, and one half as a dashed line."""
    axes.axhline(0.5, color=MUTED, linewidth=1, linestyle=DASHED)
    axes.fill_between(labels, lows, highs, color=POLICY, alpha=0.16, linewidth=0)
    axes.vlines(labels, lows, highs, color=POLICY, linewidth=1.2, alpha=0.55)
    line(axes, labels, shares, POLICY, "o")
    end_label(axes, (labels[-1], shares[-1]), percent(shares[-1]), POLICY)
    over_labels(axes, labels, unit.axis)
    axes.set_ylim(min(0.4, floor(min(lows) * 10) / 10), max(0.6, ceil(max(highs) * 10) / 10))
    axes.yaxis.set_major_formatter(lambda value, _: percent(value))


def course(
    labels: Sequence[int], shares: Sequence[float], lows: Sequence[float], highs: Sequence[float], unit: Unit
) -> str:
    """Say where shares begin and end."""
    return (
        f"{percent(shares[0])} after {unit.said(labels[0])}, {percent(shares[-1])} (95% interval "
        f"{percent(lows[-1])} to {percent(highs[-1])}) after {count(labels[-1])}. A dashed line marks 50%."
    )


def head(unit: Unit) -> Cells:
    """Return what `when` fills the columns of."""
    return "Round", unit.many.capitalize()


def when(row: RoundRow) -> Cells:
    """Return a row's round and the labels up to its end."""
    return str(row.round), count(row.learned_from)
