"""An experiment as one self-contained HTML page: no network, light and dark, readable on a phone and on paper."""

from __future__ import annotations

from ..ledger.ledger import Ledger
from . import words
from .queries import oracle_notes, query_table
from .report import Report, read_report
from .report_charts import draw_charts
from .result import RESULT_NOTE, result_table
from .summary import (
    duel_outcome,
    headline,
    how_it_came,
    list_alarms,
    reading,
    summary_table,
    verdict_outcome,
)
from .templates import render_page

FOLD = 700
"""Characters of an answer that are shown before the rest is folded away."""
MOST = 4000
"""Characters of an answer that a page holds at all."""

_UNPRINTABLE = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(9), 11, *range(13, 32), 127)}


def write_report(ledger: Ledger) -> str:
    """Return the report of all finished rounds as HTML."""
    return render_report(read_report(ledger))


def render_report(report: Report) -> str:
    """Return a report as HTML. Pure; every text of the experiment is escaped."""
    return render_page(
        "page.html",
        filters={
            "fold": fold_text,
            "how_it_came": how_it_came,
            "duel_outcome": duel_outcome,
            "verdict_outcome": verdict_outcome,
        },
        report=report,
        headline=headline(report),
        alarms=list_alarms(report),
        reading=reading(report),
        result=result_table(report),
        result_note=RESULT_NOTE,
        table=summary_table(report.rows),
        charts=draw_charts(report.rows, report.opponent, report.reliability),
        facts=_list_facts(report),
        digests=_list_digests(report),
        queries=query_table([(row.round, row.clashes, row.queried) for row in report.rows]),
        oracle_notes=oracle_notes(report.rows[-1].queried) if report.rows else [],
    )


def fold_text(text: str, length: int = FOLD, most: int = MOST) -> tuple[str, str, int]:
    """Split a text into what is shown, what is folded away, and how many characters more it has.

    It is split between words where that is possible.
    """
    text = text.translate(_UNPRINTABLE)
    cut = max(0, len(text) - most)
    text = text[:most]
    if len(text) <= length:
        return text, "", cut
    place = max(text.rfind(" ", length // 2, length), text.rfind("\n", length // 2, length)) + 1 or length
    return text[:place], text[place:], cut


def _list_facts(report: Report) -> list[tuple[str, str, str]]:
    """Return name, value and what it is out of."""
    if not report.rows:
        return []
    pairs = [row.pairs for row in report.rows if row.pairs is not None]
    synthetic = sum(row.explored.synthetic or 0 for row in report.rows)
    return [
        ("Rounds", words.count(len(report.rows)), f"of {report.rounds} planned" if report.rounds else ""),
        (
            "Preferences read" if report.offline else "Oracle queries",
            words.count(report.rows[-1].learned_from),
            f"of {words.count(report.budget)}",
        ),
        ("Pairs learned from", words.count(sum(pairs) if pairs else None), ""),
        *([("Synthetic pairs", words.count(synthetic), "")] if synthetic else []),
        *([("Duels picked by", report.strategy, "")] if report.strategy else []),
        *([("Seed", str(report.seed), "one run")] if report.seed is not None else []),
        ("Time in steps", words.duration(sum(row.wall_seconds for row in report.rows)), ""),
    ]


def _list_digests(report: Report) -> list[tuple[str, str]]:
    chain = [
        line
        for row in report.rows
        for line in ((f"policy {row.round}", row.policy), (f"round {row.round}", row.digest))
    ]
    return [*report.digests.items(), *chain]
