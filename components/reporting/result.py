"""The result of an experiment as a table: each number with its interval, and what it is over."""

from __future__ import annotations

from collections.abc import Iterator

from ..evaluation.held_out import HeldOut, change
from ..statistics.equal_length import EVIDENCE
from .curves import RoundRow
from .report import Report
from .table import Column, Table
from .words import NOT_MEASURED, chance, count, interval, percent, points, rounded, signed_interval

RESULT_NOTE = (
    "Intervals are over prompts: of win rates and differences, which are paired by prompt, Wilson's with the outcomes' "
    "variance; of other means Student's, corrected for skewness (Hall 1992). At equal length, by bootstrap: a logistic "
    "regression of the outcome on the difference in length, tanh of its standard score, read off where the difference "
    f"is 0 (after arXiv 2404.04475); it needs {EVIDENCE} wins and {EVIDENCE} losses. The sign test is exact and "
    "two-sided, and leaves ties out."
)


def result_table(report: Report) -> Table | None:
    """Return what the last evaluated round shows, or None where there is none."""
    row = report.evaluated
    if row is None or row.answers is None:
        return None
    lines = [*_result_lines(row, row.answers), *_change_lines(report, row, row.answers)]
    heads = ("After round " + str(row.round), "Value", "95% interval", "Over")
    return Table(tuple(Column(head, values) for head, values in zip(heads, zip(*lines, strict=True), strict=True)))


def _result_lines(row: RoundRow, found: HeldOut) -> Iterator[tuple[str, str, str, str]]:
    prompts = f"{count(found.prompts)} prompts"
    equal = f", {count(found.equal)} of them equal texts" if found.equal else ""
    told = f"{prompts}: {count(found.wins)} won, {count(found.ties)} tied{equal}, {count(found.losses)} lost"
    yield "Win rate", percent(row.win_rate), interval(row.low, row.high), told
    held = found.length_controlled
    if held is not None:
        yield "Win rate at equal length", percent(held.value), interval(held.low, held.high), prompts
    else:
        yield "Win rate at equal length", NOT_MEASURED, NOT_MEASURED, found.no_length_control
    yield "Sign test against 50%", chance(found.p_value), "", f"{count(found.decided)} prompts won or lost"
    longer = found.longer
    yield "Longer than the opponent’s", f"{longer.value:+.1f} tokens", signed_interval(longer), prompts
    if found.reward is not None and found.opponent_reward is not None:
        known = found.reward.low is not None
        span = f"[{rounded(found.reward.low)}, {rounded(found.reward.high)}]" if known else NOT_MEASURED
        yield "Reward of an answer", rounded(found.reward.value), span, prompts


def _change_lines(report: Report, row: RoundRow, found: HeldOut) -> Iterator[tuple[str, str, str, str]]:
    """Compare with the first round that was evaluated, where that is another one."""
    first = next(one for one in report.rows if one.answers is not None)
    if first is row or first.answers is None:
        return
    changed = change(first.answers, found)
    if changed is not None:
        difference, shared = changed
        span = signed_interval(difference, 100)
        yield f"Change since round {first.round}", points(difference.value), span, f"the same {shared} prompts"
