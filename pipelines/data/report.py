"""`oatflow report`: one experiment as a page, or several side by side."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oatflow.components.errors import RefusedInput
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.beginning import has_begun
from oatflow.components.store.files import write_whole
from oatflow.components.store.store import open_store

from ..alignment.config import all_settings
from ..flags import Flag, add_flags, command
from ..laptop.place import experiment_uri, home_folder, ledger_root

if TYPE_CHECKING:
    from oatflow.components.reporting.entrants import ExperimentComparison

LONGEST_NAME = 120
FLAGS: list[Flag] = [
    ("--out", {"type": Path, "metavar": "FILE",
               "help": "file to write (default: HOME/reports/NAME.html, or A-vs-B.html)"}),
    ("--level", {"type": float, "action": "append", "metavar": "SHARE", "dest": "levels",
                 "help": "win rate to count the queries to, such as 0.65; may be given again, for a comparison alone "
                 "(default: 0.6, 0.7 and 0.8)"}),
]  # fmt: skip


def report_parser(commands: Any) -> None:
    """Add `oatflow report`."""
    parser = command(
        commands, "report", "write the HTML report of an experiment, or of several side by side", _run_report
    )
    help_ = "experiment (default: demo); several are compared, with the first as the baseline"
    parser.add_argument("experiments", nargs="*", metavar="NAME", help=help_)
    add_flags(parser, FLAGS)


def _run_report(given: argparse.Namespace) -> int:
    names = given.experiments or ["demo"]
    _check_given(names, given.levels)
    home = home_folder(given.home)
    with ledger_root(home, given.ledger) as root:
        ledgers = [open_existing(root, name) for name in names]
        html, lines = _compare_experiments(ledgers, given.levels) if len(names) > 1 else (_write_page(ledgers[0]), [])
    out: Path = given.out or home / "reports" / f"{'-vs-'.join(names)[:LONGEST_NAME]}.html"
    write_whole(out, html.encode())
    for line in [*lines, str(out)]:
        print(line)
    return 0


def open_existing(root: str, name: str) -> Ledger:
    """Open an experiment that has begun; raises `RefusedInput` where there is none."""
    ledger = Ledger(open_store(experiment_uri(root, name)))
    if not has_begun(ledger):
        raise RefusedInput(f"experiment={name!r}: there is none in {root}; `oatflow align` begins one")
    return ledger


def meaning(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what gives an experiment its meaning, as room.name: no operational settings.

    A setting that is younger than the experiment had its default then.
    """
    return {
        f"{setting.room}.{setting.name}": settings.get(setting.room, {}).get(setting.name, setting.default)
        for setting in all_settings()
        if not setting.operational
    }


def compare_ledgers(ledgers: Sequence[Ledger]) -> ExperimentComparison:
    """Read experiments and put them side by side."""
    from oatflow.components.reporting.entrants import compare_entrants, read_entrant

    return compare_entrants([read_entrant(ledger, meaning(ledger.experiment.settings)) for ledger in ledgers])


def _check_given(names: Sequence[str], levels: Sequence[float] | None) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RefusedInput(f"experiment={name!r}: named {names.count(name)} times; name each one once")
    for level in levels or ():
        if not 0 < level <= 1:
            raise RefusedInput(f"level={level:g}: expected a share above 0 and up to 1, such as 0.65")
    if levels and len(names) == 1:
        raise RefusedInput(f"level={levels[0]:g}: only a comparison counts queries to a level; name two experiments")


def _write_page(ledger: Ledger) -> str:
    from oatflow.components.reporting.page import write_report

    return write_report(ledger)


def _compare_experiments(ledgers: Sequence[Ledger], levels: Sequence[float] | None) -> tuple[str, list[str]]:
    """Return the page of a comparison, and what it says in short."""
    from oatflow.components.reporting.comparison_page import LEVELS, MOST_GROUPS, in_short, render_comparison

    comparison = compare_ledgers(ledgers)
    if len(comparison.groups) > MOST_GROUPS:
        raise RefusedInput(
            f"{len(comparison.groups)} kinds of experiment: a page can tell {MOST_GROUPS} apart; name fewer"
        )
    return render_comparison(comparison, sorted(set(levels)) if levels else LEVELS), in_short(comparison)
