"""`oatflow benchmark`: where the time of one round went, from its done marks alone.

What a round is for is *generating* tokens and *passes* of the network, forward and backward. Everything else is
overhead: starting processes, loading and moving weights, asking an oracle, the gaps between steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from oatflow.components.errors import RefusedInput
from oatflow.components.ledger import layout
from oatflow.components.ledger.done import Done
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.reporting.words import NOT_MEASURED

_PASSES = ("forward_backward", "reference")
_HEAD = ("step", "seconds", "generating", "passes", "start-up", "other work", "overhead", "of the round")


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one part of a round. `startup` and `other` are what is neither generating nor passes."""

    part: str
    wall: float
    generating: float = 0.0
    passes: float = 0.0
    startup: float = 0.0

    @property
    def overhead(self) -> float:
        """Seconds that are neither generating tokens nor passes of the network."""
        return self.wall - self.generating - self.passes

    @property
    def other(self) -> float:
        """Overhead that is not start-up."""
        return self.overhead - self.startup


def round_cost(ledger: Ledger, round_: int) -> list[Cost]:
    """Return what each step of a finished round cost, and the gaps before, between and after them, in their order.

    Times at which documents were written come from the store's listing. A pause between two runs is not counted.
    """
    marks = [mark for room in layout.ROOMS if (mark := ledger.find_done(round_, room))]
    if not marks or marks[-1].step != layout.ROOMS[-1]:
        raise RefusedInput(f"round={round_}: not finished; `oatflow status` says where it stands")
    written = {
        entry.key: entry.modified
        for number in (round_ - 1, round_)
        if number >= 0
        for entry in ledger.store.list(layout.round_folder(number))
    }
    before = ledger.find_done(round_ - 1, layout.ROOMS[-1]) if round_ else None
    return costs(marks, _find_begin(marks[0], before, written), written.get(layout.round_record_key(round_)))


def costs(marks: Sequence[Done], begun: float | None, closed: float | None) -> list[Cost]:
    """Split a round's time. Pure. `begun`, `closed`: when the round began and its record was written, if known."""
    marks = sorted(marks, key=lambda mark: mark.started)
    parts = [] if begun is None else [Cost("open", max(0.0, marks[0].started - begun))]
    parts.append(_step_cost(marks[0]))
    for before, mark in pairwise(marks):
        gap = mark.started - before.finished if mark.run == before.run else 0.0
        parts += [Cost(f"{layout.STEPS[before.step]} → {layout.STEPS[mark.step]}", max(0.0, gap)), _step_cost(mark)]
    return parts if closed is None else [*parts, Cost("close", max(0.0, closed - marks[-1].finished))]


def total(parts: Sequence[Cost]) -> Cost:
    """Return the whole round's cost."""
    return Cost(
        "round",
        sum(part.wall for part in parts),
        sum(part.generating for part in parts),
        sum(part.passes for part in parts),
        sum(part.startup for part in parts),
    )


def cost_table(parts: Sequence[Cost]) -> list[list[str]]:
    """Return the costs as text, head first, the whole round last; shares are of the round's time."""
    whole = total(parts)
    return [list(_HEAD), *(_format_line(part, whole.wall) for part in (*parts, whole))]


def verdict(parts: Sequence[Cost], round_: int) -> str:
    """Say the one figure that counts."""
    whole = total(parts)
    share = whole.overhead / whole.wall if whole.wall else 0.0
    return f"{share:.1%} of round {round_}'s {whole.wall:.1f} s is neither generating tokens nor a network's passes."


def print_round_cost(ledger: Ledger, round_: int) -> None:
    """Print the table and the figure."""
    parts = round_cost(ledger, round_)
    lines = cost_table(parts)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *cells in lines:
        print(
            name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)), sep="  "
        )
    print(verdict(parts, round_))


def _find_begin(first: Done, before: Done | None, written: Mapping[str, float]) -> float | None:
    """Return when a round began: where its run closed the round before, else with its plan; None where a run took over.

    Every claim raises the fencing token by one, so a token that skips one tells of a run that began in vain.
    """
    if first.token != (before.token if before else 0) + 1:
        return None
    same_run = before is not None and before.run == first.run
    return written.get(layout.round_record_key(first.round - 1) if same_run else layout.plan_key(first.round))


def _step_cost(mark: Done) -> Cost:
    timings: Mapping[str, float] = mark.timings
    passes = sum(timings.get(name, 0.0) for name in _PASSES)
    wall = mark.finished - mark.started
    return Cost(layout.STEPS[mark.step], wall, timings.get("generate", 0.0), passes, timings.get("startup", 0.0))


def _format_line(part: Cost, whole: float) -> list[str]:
    shown = (part.wall, part.generating, part.passes, part.startup, part.other, part.overhead)
    return [part.part, *(f"{value:.1f}" for value in shown), f"{part.overhead / whole:.1%}" if whole else NOT_MEASURED]
