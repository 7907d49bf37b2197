"""Experiments side by side as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isinf

from ..statistics.intervals import Estimate
from .entrants import ExperimentComparison, Group, describe_kind
from .label_efficiency import Level, Reach, Reached, at_equal_labels, curve, extra_tokens, reach
from .line_chart import EVEN, Chart, Curve, Point, Scale, curve_chart, draw_estimate
from .svg import LOOKS
from .table import Column, Table
from .templates import render_page
from .words import NOT_MEASURED, count, interval, percent, points, rounded, signed_interval

LEVELS = (0.6, 0.7, 0.8)
"""Win rates to which labels are counted by default."""
MOST_GROUPS = len(LOOKS)
FEW_SEEDS = 5
LONGER = Scale(rounded, 0.0, "0: as long")
_BANDED = 3


def render_comparison(comparison: ExperimentComparison, levels: Sequence[float] = LEVELS) -> str:
    """Return the comparison as HTML. Pure; the same experiments give the same bytes."""
    seed = _seed_of(comparison)
    compared = at_equal_labels(comparison, seed) if comparison.groups else []
    reached = [[reach(group, level, seed) for level in levels] for group in comparison.groups]
    return render_page(
        "comparison.html",
        comparison=comparison,
        headline=write_headline(comparison, compared),
        verdicts=write_verdicts(comparison, compared),
        notes=[*seed_notes(comparison), *length_notes(comparison, compared)],
        table=level_table(comparison, compared) if comparison.groups else None,
        numbers_of_table=level_numbers(comparison, compared) if comparison.groups else None,
        reaches=reach_table(comparison, reached),
        numbers_of_reaches=reach_numbers(comparison, reached),
        charts=[rate_chart(comparison, seed), length_chart(comparison, seed)] if comparison.groups else [],
        entrants=entrant_table(comparison),
        differences=difference_table(comparison),
    )


def in_short(comparison: ExperimentComparison) -> list[str]:
    """Return the lines at the top of the page."""
    compared = at_equal_labels(comparison, _seed_of(comparison)) if comparison.groups else []
    left_out = [f"not compared: {name}: {reason}" for name, reason in comparison.left_out]
    return [
        write_headline(comparison, compared),
        *write_verdicts(comparison, compared),
        *seed_notes(comparison),
        *left_out,
    ]


def write_headline(comparison: ExperimentComparison, compared: Sequence[Level | None]) -> str:
    """Return one sentence: what was compared, at how many labels, on which prompts, against which opponent."""
    if not comparison.groups:
        return "None of these experiments can be compared."
    first, level = comparison.groups[0].entrants[0], next((one for one in compared if one is not None), None)
    many = len(comparison.groups)
    what = "One kind of experiment" if many == 1 else f"{many} kinds of experiment"
    over = "" if level is None else f" after {comparison.unit.said(level.most)}, on {level.prompts} held-out prompts"
    return f"{what}{over} against {first.conditions['opponent']}, judged by {first.conditions['judge']}."


def write_verdicts(comparison: ExperimentComparison, compared: Sequence[Level | None]) -> list[str]:
    """Return a sentence per group: its win rate, and whether it differs from that of the first group."""
    told = []
    for group, level in zip(comparison.groups, compared, strict=True):
        if level is None:
            told.append(f"{group.name} measured no round so early.")
            continue
        rate = f"{group.name} wins {percent(level.rate.value)} {interval(level.rate.low, level.rate.high)}"
        told.append(
            f"{rate}." if level.difference is None else f"{rate}: {_describe_difference(comparison, level.difference)}."
        )
    return told


def seed_notes(comparison: ExperimentComparison) -> list[str]:
    """Return what the intervals are over, and when they are unreliable."""
    notes = []
    single = [group.name for group in comparison.groups if len(group.seeds) == 1]
    few = [group.name for group in comparison.groups if 1 < len(group.seeds) < FEW_SEEDS]
    if single:
        notes.append(
            f"{_join_names(single)}: 1 seed; the interval is over prompts alone and says nothing about other seeds."
        )
    if few:
        notes.append(f"{_join_names(few)}: fewer than {FEW_SEEDS} seeds; intervals over so few tend to be too narrow.")
    if len(comparison.groups) > 2:
        notes.append(
            f"The intervals of the {len(comparison.groups) - 1} differences hold together with 95% (Bonferroni), so "
            "each is wider than it would be alone."
        )
    return notes


def length_notes(comparison: ExperimentComparison, compared: Sequence[Level | None]) -> list[str]:
    """Return why a group has no win rate at equal length."""
    return [
        f"{group.name} has no win rate at equal length: {level.reason}."
        for group, level in zip(comparison.groups, compared, strict=True)
        if level is not None and level.reason
    ]


def level_table(comparison: ExperimentComparison, compared: Sequence[Level | None]) -> Table:
    """Return the win rates at equal labels."""
    first, groups, unit = comparison.groups[0].name, comparison.groups, comparison.unit

    def column(head: str, told: Callable[[Level], str | None]) -> Column:
        return Column(head, tuple(NOT_MEASURED if one is None else told(one) or NOT_MEASURED for one in compared))

    return Table(
        (
            Column("Experiment", tuple(group.name for group in groups)),
            column("Win rate", lambda level: _format_share(level.rate)),
            column("At equal length", _equal_length),
            column(f"Beside {first}", _format_difference),
            Column("Seeds", tuple(len(group.seeds) for group in groups), count),
            column("Prompts", lambda level: count(level.prompts)),
            column(f"Measured at ({unit.many})", lambda level: _format_span(level.labels)),
        )
    )


def level_numbers(comparison: ExperimentComparison, compared: Sequence[Level | None]) -> Table:
    """Return the same as numbers, for programs."""
    estimates = {
        "Win rate": [level.rate if level else None for level in compared],
        "At equal length": [level.equal_length if level else None for level in compared],
        "Difference": [level.difference if level else None for level in compared],
    }
    return Table(
        (
            Column("Experiment", tuple(group.name for group in comparison.groups)),
            Column("Seeds", tuple(len(group.seeds) for group in comparison.groups)),
            Column("Prompts", tuple(level.prompts if level else None for level in compared)),
            *(column for name, found in estimates.items() for column in _estimate_columns(name, found)),
        )
    )


def reach_table(comparison: ExperimentComparison, reached: Sequence[Sequence[Reach]]) -> Table:
    """Return how many labels each group needed to first reach each level. `reached`: by group, then by level."""
    groups, by_level = comparison.groups, list(zip(*reached, strict=True))
    return Table(
        (
            Column("Experiment", tuple(group.name for group in groups)),
            Column("Seeds", tuple(len(group.seeds) for group in groups), count),
            *(
                Column(
                    f"To {percent(found[0].level)}",
                    tuple(_format_reach(one, len(group.seeds)) for one, group in zip(found, groups, strict=True)),
                )
                for found in by_level
            ),
        )
    )


def reach_numbers(comparison: ExperimentComparison, reached: Sequence[Sequence[Reach]]) -> Table:
    """Return the same as numbers, for programs: one line a group and level, inf where it was not reached."""
    lines = [
        (group, one) for group, found in zip(comparison.groups, reached, strict=True) for one in found
    ]  # fmt: skip
    return Table(
        (
            Column("Experiment", tuple(group.name for group, _ in lines)),
            Column("Level", tuple(one.level for _, one in lines)),
            *_estimate_columns(comparison.unit.many.capitalize(), [one.labels for _, one in lines]),
            Column("Seeds that reached it", tuple(one.seeds for _, one in lines)),
            Column("Seeds", tuple(len(group.seeds) for group, _ in lines)),
            Column("Within", tuple(one.within for _, one in lines)),
        )
    )


def _estimate_columns(name: str, estimates: Sequence[Estimate | None]) -> list[Column]:
    value, low, high = draw_estimate(name, estimates, rounded)
    return [value, replace(low, head=f"{name}, 95% from"), replace(high, head=f"{name}, to")]


def rate_chart(comparison: ExperimentComparison, seed: int) -> Chart:
    """Draw the win rates of all groups over labels; colour, marker and dashes distinguish the groups."""
    found = [curve(group, seed) for group in comparison.groups]
    return curve_chart(
        "win-rates", "Win rate with its 95% interval", _make_curves(comparison, found), comparison.unit, EVEN,
        _over_labels(comparison, found, "Win rate", percent),
        label="the win rates", note="Mean over seeds of each round, at the mean number of labels up to its end.",
    )  # fmt: skip


def length_chart(comparison: ExperimentComparison, seed: int) -> Chart:
    """Draw by how much the answers of all groups are longer than the opponent's."""
    found = [curve(group, seed, extra_tokens) for group in comparison.groups]
    return curve_chart(
        "lengths", "Tokens more than the opponent’s answer", _make_curves(comparison, found), comparison.unit, LONGER,
        _over_labels(comparison, found, "Tokens more", rounded),
        label="by how many tokens the held-out answers are longer than the opponent’s",
        note="Mean with its 95% interval. If the win rate rises with the length, length may explain it: look at the "
        "win rate at equal length.",
    )  # fmt: skip


def _make_curves(comparison: ExperimentComparison, found: Sequence[Sequence[Reached]]) -> list[Curve]:
    banded = len(found) <= _BANDED
    points_ = [[Point(one.labels, one.found.value, one.found.low, one.found.high) for one in ones] for ones in found]
    return [
        Curve(group.name, look, tuple(told), banded)
        for group, look, told in zip(comparison.groups, LOOKS, points_, strict=False)
    ]


def entrant_table(comparison: ExperimentComparison) -> Table:
    """Return each experiment with its kind, seed, rounds and digest."""
    entrants = [(group.name, entrant) for group in comparison.groups for entrant in group.entrants]
    return Table(
        (
            Column("Experiment", tuple(entrant.name for _, entrant in entrants)),
            Column("Compared as", tuple(name for name, _ in entrants)),
            Column("How it learns", tuple(describe_kind(entrant) for _, entrant in entrants)),
            Column("Seed", tuple(entrant.seed for _, entrant in entrants)),
            Column("Rounds", tuple(entrant.rounds for _, entrant in entrants), count),
            Column("HEAD", tuple(entrant.digest[:12] for _, entrant in entrants)),
        )
    )


def difference_table(comparison: ExperimentComparison) -> Table | None:
    """Return the settings in which the groups differ, or None where there is one group."""
    if len(comparison.groups) < 2:
        return None
    told = comparison.differences
    return Table(
        (
            Column("Setting", tuple(told)),
            *(
                Column(group.name, tuple(str(values[place]) for values in told.values()))
                for place, group in enumerate(comparison.groups)
            ),
        )
    )


def _over_labels(
    comparison: ExperimentComparison,
    found: Sequence[Sequence[Reached]],
    name: str,
    shown: Callable[[float | None], str],
) -> Table:
    lines = [
        (group, place, one)
        for group, reached in zip(comparison.groups, found, strict=True)
        for place, one in enumerate(reached)
    ]
    return Table(
        (
            Column("Experiment", tuple(group.name for group, _, _ in lines)),
            Column("Round", tuple(_round_at(group, place) for group, place, _ in lines)),
            Column(comparison.unit.many.capitalize(), tuple(one.labels for _, _, one in lines), count),
            *draw_estimate(name, [one.found for _, _, one in lines], shown),
            Column("Seeds", tuple(len(group.seeds) for group, _, _ in lines)),
        )
    )


def _round_at(group: Group, place: int) -> int:
    return group.entrants[0].measured[place].round


def _describe_difference(comparison: ExperimentComparison, difference: Estimate) -> str:
    first = comparison.groups[0].name
    told = f"{points(difference.value)} {_points_interval(difference)} beside {first}"
    if difference.low is not None and difference.low > 0:
        return f"{told}, better"
    is_worse = difference.high is not None and difference.high < 0
    return f"{told}, worse" if is_worse else f"{told}, not distinguishable"


def _format_difference(level: Level) -> str | None:
    found = level.difference
    return None if found is None else f"{points(found.value)} {_points_interval(found)}"


def _points_interval(found: Estimate) -> str:
    return signed_interval(found, 100)


def _format_share(found: Estimate) -> str:
    return f"{percent(found.value)} {interval(found.low, found.high)}"


def _equal_length(level: Level) -> str | None:
    return _format_share(level.equal_length) if level.equal_length else None


def _format_reach(found: Reach, seeds: int) -> str:
    by = f", by {found.seeds} of {seeds} seeds" if seeds > 1 else ""
    ends = ", ".join(_format_labels(value, found.within) for value in (found.labels.low, found.labels.high))
    return f"{_format_labels(found.labels.value, found.within)} [{ends}]{by}"


def _format_labels(value: float | None, within: int) -> str:
    return f"> {count(within)}" if value is None or isinf(value) else count(int(value))


def _format_span(ends: tuple[int, int]) -> str:
    return count(ends[0]) if ends[0] == ends[1] else f"{count(ends[0])} to {count(ends[1])}"


def _join_names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _seed_of(comparison: ExperimentComparison) -> int:
    return comparison.groups[0].seeds[0] if comparison.groups else 0
