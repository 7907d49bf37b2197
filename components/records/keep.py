"""How a step keeps what it makes, and reads what other steps have kept: on the ledger, or in memory.

Stations know these two protocols, and never the ledger itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ..errors import LedgerError
from .tables import Table

Record = TypeVar("Record")


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

    def read_output(self, step: str, name: str, round_: int) -> bytes:
        """Return one output. Raises `LedgerError` if the step has not written it."""
        ...


def keep_table(keep: Keep, table: Table[Record], make: Callable[[], Sequence[Record]]) -> list[Record]:
    """Return the table that is kept; it is made now if it is not there yet."""
    found = keep.find_output(table.name)
    if found is None:
        found = keep.write_output(table.name, table.to_bytes(make()))
    return table.from_bytes(found)


def keep_bytes(keep: Keep, name: str, make: Callable[[], bytes]) -> bytes:
    """Return the output that is kept; it is made now if it is not there yet."""
    found = keep.find_output(name)
    return keep.write_output(name, make()) if found is None else found


def read_table(finished: FinishedSteps, table: Table[Record], round_: int) -> list[Record]:
    """Return the rows of a table that a finished step of a round wrote: of all its parts, if it has parts.

    Raises:
        LedgerError: The step has not written it.
    """
    if not table.in_parts:
        return table.from_bytes(finished.read_output(table.step, table.name, round_))
    names = sorted(filter(table.is_part, finished.list_outputs(table.step, round_)))
    return table.join_parts(finished.read_output(table.step, name, round_) for name in names)


@dataclass
class Memory:
    """Keeps the outputs of all steps of all rounds in memory, for a notebook or a test."""

    outputs: dict[tuple[int, str, str], bytes] = field(default_factory=dict)

    def open_step(self, step: str, round_: int) -> StepInMemory:
        """Return what keeps the outputs of one step."""
        return StepInMemory(self, step, round_)

    def list_outputs(self, step: str, round_: int) -> list[str]:
        """Return the names of a step's outputs."""
        return [name for kept_round, kept_step, name in self.outputs if (kept_round, kept_step) == (round_, step)]

    def read_output(self, step: str, name: str, round_: int) -> bytes:
        """Return one output. Raises `LedgerError` if the step has not written it."""
        try:
            return self.outputs[round_, step, name]
        except KeyError:
            raise LedgerError(f"round {round_}: {step} has not written {name}") from None


@dataclass(frozen=True)
class StepInMemory:
    """Keeps the outputs of one step in memory."""

    memory: Memory
    step: str
    round: int

    def find_output(self, name: str) -> bytes | None:
        """Return an output that is kept already, or None."""
        return self.memory.outputs.get((self.round, self.step, name))

    def write_output(self, name: str, data: bytes) -> bytes:
        """Keep an output; returns what is kept."""
        return self.memory.outputs.setdefault((self.round, self.step, name), data)

    def verify_claim(self) -> None:
        """Do nothing: nobody else plays this round."""
