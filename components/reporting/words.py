"""Formats numbers for people. None, which means not measured, is a dash."""

from __future__ import annotations

from dataclasses import dataclass

from ..statistics.intervals import Estimate

NOT_MEASURED = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Unit:
    """What the labels of an experiment are counted in."""

    one: str
    many: str
    axis: str

    def said(self, number: int) -> str:
        """1 is 1 query, 4533 is 4,533 queries."""
        return f"{number:,} {self.one if number == 1 else self.many}"


QUERIES = Unit("query", "queries", "oracle queries")
PREFERENCES = Unit("preference", "preferences", "preferences of the set")


def percent(value: float | None) -> str:
    """0.714 is 71%."""
    return NOT_MEASURED if value is None else f"{100 * value:.0f}%"


def interval(low: float | None, high: float | None) -> str:
    """(0.62, 0.791) is [62, 79], in percent."""
    return NOT_MEASURED if low is None or high is None else f"[{100 * low:.0f}, {100 * high:.0f}]"


def signed_interval(found: Estimate, scale: float = 1.0) -> str:
    """(-0.02, 0.071) is [-2.0, +7.1] at scale 100."""
    if found.low is None or found.high is None:
        return NOT_MEASURED
    return f"[{scale * found.low:+.1f}, {scale * found.high:+.1f}]"


def points(value: float | None) -> str:
    """0.034 is +3.4 points."""
    return NOT_MEASURED if value is None else f"{100 * value:+.1f} points"


def chance(value: float | None) -> str:
    """0.0004 is p < 0.001, 0.0312 is p = 0.031."""
    if value is None:
        return NOT_MEASURED
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def rounded(value: float | None) -> str:
    """0.1234 is 0.12; small numbers keep two digits that count."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"


def count(value: int | None) -> str:
    """4533 is 4,533."""
    return NOT_MEASURED if value is None else f"{value:,}"


def seconds(value: float | None) -> str:
    """0.25 is 0.2 s, 41.3 is 41 s."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.1f} s" if value < 9.95 else f"{value:,.0f} s"


def duration(value: float | None) -> str:
    """374 is 6 min 14 s."""
    if value is None:
        return NOT_MEASURED
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
