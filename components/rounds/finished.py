"""Reads what finished steps left in the ledger, where no step notes it as its input."""

from __future__ import annotations

from dataclasses import dataclass

from ..ledger.ledger import Ledger


@dataclass(frozen=True)
class FinishedOnLedger:
    """The outputs of finished steps; satisfies `records.keep.FinishedSteps`."""

    ledger: Ledger

    def list_outputs(self, step: str, round_: int) -> list[str]:
        """Return the names of a step's outputs; none if the step is not done."""
        done = self.ledger.done(round_, step)
        return [placed.name for placed in done.outputs] if done else []

    def read_output(self, step: str, name: str, round_: int) -> bytes:
        """Return one output. Raises `LedgerError` if the step has not written it."""
        return self.ledger.read(round_, step, name)
