"""How a step keeps what it makes, and reads what other steps have kept: on the ledger, or in memory.

Stations know these two protocols, and never the ledger itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import LedgerError
from .records import Preference
from .tables import Table

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step counted and measured.

    Attributes:
        counts: Whole numbers, by name.
        facts: Everything else that was measured, by name; what was not measured is not there.
        timings: Seconds that parts of the step took.
    """

    counts: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)


class Keep(Protocol):
    """Keeps the outputs of one step. An output that an earlier attempt of the step kept is used, not made again."""

    def find_output(self, name: str) -> bytes | None:
        """Return an output that is kept already, or None."""
        ...

    def write_output(self, name: str, data: bytes) -> bytes:
        """Keep an output; returns what is kept, which is another attempt's if that one was first."""
        ...

    def verify_claim(self) -> None:
        """Raise `ClaimLost` if another run has taken the round over. Call it before what cannot be undone."""
        ...


class FinishedSteps(Protocol):
    """Reads what finished steps kept, of this round and of earlier ones."""

    def list_outputs(self, step: str, round_: int) -> list[str]:
        """Return the names of a step's outputs; none if the step is not done."""
        ...

    def read_output(self, step: str, name: str, round_: int, as_input: bool = True) -> bytes:
        """Return one output. Raises `LedgerError` if the step has not written it.

        `as_input`: whether it is recorded as an input of the step that reads it.
        """
        ...

    def read_report(self, step: str, round_: int) -> StepReport | None:
        """Return what a finished step counted and measured, or None if it is not done."""
        ...

    def find_answers(self, table: Table[Preference], duels: Collection[str], before: int) -> dict[str, Preference]:
        """Return the oracle's answers to these duels in a table of the rounds before `before`, by the duel's id."""
        ...

    def sum_cost(self, before: int) -> float:
        """Return what the oracle has cost in the rounds before `before`."""
        ...


class StepOutputs(Keep, FinishedSteps, Protocol):
    """What one step of a round works with: it keeps its own outputs, and reads those of finished steps."""

    def begin_work(self) -> float:
        """Note that what came before was start-up; returns the time, in seconds of the monotonic clock."""
        ...

    def upload_folder(self, name: str, folder: Path) -> None:
        """Keep a folder's files as outputs ``name/...``."""
        ...


def keep_table(keep: Keep, table: Table[Record], make: Callable[[], Sequence[Record]]) -> list[Record]:
    """Return the table that is kept; it is made now if it is not there yet."""
    found = keep.find_output(table.name)
    if found is None:
        found = keep.write_output(table.name, table.to_bytes(make()))
    return table.from_bytes(found)


def write_table(keep: Keep, table: Table[Record], rows: Sequence[Record]) -> list[Record]:
    """Keep rows that are made already; returns the rows that are kept, which another attempt may have written."""
    return table.from_bytes(keep.write_output(table.name, table.to_bytes(rows)))


def keep_bytes(keep: Keep, name: str, make: Callable[[], bytes]) -> bytes:
    """Return the output that is kept; it is made now if it is not there yet."""
    found = keep.find_output(name)
    return keep.write_output(name, make()) if found is None else found


def read_table(finished: FinishedSteps, table: Table[Record], round_: int, as_input: bool = True) -> list[Record]:
    """Return the rows of a table that a finished step of a round wrote: of all its parts, if it has parts.

    Args:
        finished: Reads the outputs of finished steps.
        table: Which table.
        round_: Of which round.
        as_input: Whether it is recorded as an input of the step that reads it.

    Raises:
        LedgerError: The step has not written it.
    """
    names = [table.name]
    if table.in_parts:
        names = sorted(filter(table.is_part, finished.list_outputs(table.step, round_)))
    return table.join_parts(finished.read_output(table.step, name, round_, as_input) for name in names)


@dataclass
class Memory:
    """Keeps the outputs and reports of all steps of all rounds in memory, for a notebook or a test."""

    outputs: dict[tuple[int, str, str], bytes] = field(default_factory=dict)
    reports: dict[tuple[int, str], StepReport] = field(default_factory=dict)

    def open_step(self, step: str, round_: int) -> StepInMemory:
        """Return what keeps the outputs of one step."""
        return StepInMemory(self.outputs, self.reports, step, round_)

    def list_outputs(self, step: str, round_: int) -> list[str]:
        """Return the names of a step's outputs."""
        return [name for kept_round, kept_step, name in self.outputs if (kept_round, kept_step) == (round_, step)]

    def read_output(self, step: str, name: str, round_: int, as_input: bool = True) -> bytes:
        """Return one output. Raises `LedgerError` if the step has not written it."""
        try:
            return self.outputs[round_, step, name]
        except KeyError:
            raise LedgerError(f"round {round_}: {step} has not written {name}") from None

    def read_report(self, step: str, round_: int) -> StepReport | None:
        """Return what a finished step counted and measured, or None if it is not done."""
        return self.reports.get((round_, step))

    def find_answers(self, table: Table[Preference], duels: Collection[str], before: int) -> dict[str, Preference]:
        """Return the oracle's answers to these duels in a table of the rounds before `before`, by the duel's id."""
        return walk_answers(self, table, duels, before)

    def sum_cost(self, before: int) -> float:
        """Return what the oracle has cost in the rounds before `before`."""
        return sum_costs(report for (round_, _), report in self.reports.items() if round_ < before)


def walk_answers(
    finished: FinishedSteps, table: Table[Preference], duels: Collection[str], before: int
) -> dict[str, Preference]:
    """Return the oracle's answers to these duels, by the duel's id, by reading all rounds before `before`."""
    rows = (row for round_ in range(before) for row in read_table(finished, table, round_, as_input=False))
    return {row.duel_id: row for row in rows if row.is_answer and row.duel_id in duels}


def sum_costs(reports: Iterable[StepReport | None]) -> float:
    """Add up what the oracle's answers cost in some steps."""
    return sum(float(report.facts.get("cost", 0.0)) for report in reports if report)


@dataclass
class StepInMemory(Memory):
    """Keeps the outputs of one step in memory."""

    step: str = ""
    round: int = 0

    def find_output(self, name: str) -> bytes | None:
        """Return an output that is kept already, or None."""
        return self.outputs.get((self.round, self.step, name))

    def write_output(self, name: str, data: bytes) -> bytes:
        """Keep an output; returns what is kept."""
        return self.outputs.setdefault((self.round, self.step, name), data)

    def verify_claim(self) -> None:
        """Do nothing: nobody else plays this round."""

    def begin_work(self) -> float:
        """Return the time, in seconds of the monotonic clock."""
        return time.monotonic()

    def upload_folder(self, name: str, folder: Path) -> None:
        """Keep a folder's files as outputs ``name/...``."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.write_output(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
