"""A comparison as one self-contained HTML page, in the style of the reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..reporting.templates import render_page
from ..reporting.words import QUERIES
from .charts import comparison_charts
from .comparison import Comparison
from .table import table, verdicts


def render(comparison: Comparison, world: str, settings: Mapping[str, object]) -> str:
    """Return the page. `world`: where they played, in words; `settings`: what the command was given."""
    return render_page(
        "simulation.html",
        Path(__file__).parent,
        headline=headline(comparison),
        world=world,
        verdicts=verdicts(comparison),
        table=table(comparison),
        charts=comparison_charts(comparison),
        settings=settings,
        law=comparison.rules.law,
        seeds=comparison.seeds,
    )


def headline(comparison: Comparison) -> str:
    """Say what was done: 7 strategies and random, 20 seeds, 2,560 queries each."""
    rivals, seeds = len(comparison.strategies) - 1, comparison.seeds
    players = f"{rivals} {'strategy' if rivals == 1 else 'strategies'} and random" if rivals else "Random alone"
    return f"{players}, {seeds} seed{'s' * (seeds != 1)}, {QUERIES.said(comparison.rules.queries)} each"
