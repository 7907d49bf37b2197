"""A tournament as one self-contained HTML page, in the style of the reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..reporting.templates import render_page
from ..reporting.words import QUERIES
from .tournament import Tournament
from .tournament_charts import draw_tournament
from .tournament_table import state_findings, tabulate_tournament


def render_tournament(tournament: Tournament, world: str, settings: Mapping[str, object]) -> str:
    """Return the page. `world`: where the strategies played, in words; `settings`: those of the command."""
    return render_page(
        "simulation.html",
        Path(__file__).parent,
        headline=describe_tournament(tournament),
        world=world,
        verdicts=state_findings(tournament),
        table=tabulate_tournament(tournament),
        charts=draw_tournament(tournament),
        settings=settings,
        law=tournament.rules.law,
        seeds=tournament.seeds,
    )


def describe_tournament(tournament: Tournament) -> str:
    """Say what was done: 7 strategies and random, 20 seeds, 2,560 queries each."""
    rivals, seeds = len(tournament.strategies) - 1, tournament.seeds
    players = f"{rivals} {'strategy' if rivals == 1 else 'strategies'} and random" if rivals else "Random alone"
    return f"{players}, {seeds} seed{'s' * (seeds != 1)}, {QUERIES.said(tournament.rules.queries)} each"
