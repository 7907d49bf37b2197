"""One self-contained HTML page: no network, no script, light and dark, readable on a phone and on paper."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..ledger.ledger import Ledger
from . import words
from .charts import charts
from .report import Report, read_report
from .summary import headline, how_picked, page_markdown, reading, summary_table, wall_seconds

FOLD = 700
"""Characters of an answer that are shown before the rest is folded away."""

_UNPRINTABLE = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(9), 11, *range(13, 32), 127)}


def write_report(ledger: Ledger) -> str:
    """Return the report of all finished rounds as HTML."""
    return render(read_report(ledger))


def markdown_report(ledger: Ledger) -> str:
    """Return the report of all finished rounds in short, as Markdown."""
    return page_markdown(read_report(ledger))


def render(report: Report) -> str:
    """Return a report as HTML. Pure; every text of the experiment is escaped."""
    template = _environment().get_template("page.html")
    return template.render(
        report=report,
        headline=headline(report),
        reading=reading(report),
        table=summary_table(report.rows),
        charts=charts(report.rows, report.opponent),
        facts=_facts(report),
        digests=_digests(report),
    )


def fold(text: str, length: int = FOLD) -> tuple[str, str]:
    """Split a text into what is shown and what is folded away, between words where that is possible."""
    text = text.translate(_UNPRINTABLE)
    if len(text) <= length:
        return text, ""
    cut = max(text.rfind(" ", length // 2, length), text.rfind("\n", length // 2, length)) + 1 or length
    return text[:cut], text[cut:]


def _facts(report: Report) -> list[tuple[str, str, str]]:
    """Return name, value and what it is out of."""
    if not report.rows:
        return []
    pairs = [row.pairs for row in report.rows if row.pairs is not None]
    synthetic = sum(row.explored.synthetic or 0 for row in report.rows)
    return [
        ("Rounds", words.count(len(report.rows)), f"of {report.rounds}" if report.rounds else ""),
        (
            "Preferences read" if report.offline else "Oracle queries",
            words.count(report.rows[-1].learned_from),
            f"of {words.count(report.budget)}",
        ),
        ("Pairs learned from", words.count(sum(pairs) if pairs else None), ""),
        *([("Synthetic pairs", words.count(synthetic), "")] if synthetic else []),
        *([("Duels picked by", report.strategy, "")] if report.strategy else []),
        ("Time in steps", words.duration(sum(map(wall_seconds, report.rows))), ""),
    ]


def _digests(report: Report) -> list[tuple[str, str]]:
    chain = [
        line
        for row in report.rows
        for line in ((f"policy {row.round}", row.policy), (f"round {row.round}", row.digest))
    ]
    return [*report.digests.items(), *chain]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(words, name) for name in ("percent", "rounded", "count", "duration")}
    environment.filters |= {"fold": fold, "how_picked": how_picked}
    return environment
