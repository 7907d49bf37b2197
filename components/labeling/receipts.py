"""The receipts of one interview: what was asked and answered, durable before anything is made of it.

Where questions cost money, a batch is noted before it is asked. A note without a receipt means that a process ended in
between: those duels were perhaps paid for, so they count as queries, and are never asked again. Of two attempts that
live at once, the one that finds the other's note or part in the place of its own stops: the other asks on.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from ..errors import LedgerError
from ..oracles.oracle import Answer
from ..records.keep import Keep
from ..records.records import Duel, Receipt
from ..records.table import from_parquet, to_parquet

RECEIPTS = "receipts"
LOST = Answer(None, lost=True)


class Receipts:
    """All receipts of the interview `name`, those of earlier attempts included, in parts of one batch each."""

    def __init__(self, keep: Keep, name: str, oracle: str):
        self._keep, self._name, self._oracle = keep, name, oracle
        self._parts = 0
        self._attempt = secrets.token_hex(8)
        self.by_duel: dict[str, Receipt] = {}
        while self._adopt():
            pass

    def note_asked(self, duels: Sequence[Duel]) -> None:
        """Say durably that these duels are about to be asked. Raises `LedgerError` if another attempt is asking."""
        asked = [{"duel_id": duel.duel_id, "prompt_id": duel.prompt_id} for duel in duels]
        note = json.dumps({"attempt": self._attempt, "duels": asked}).encode()
        if self._keep.write_output(self._note_name, note) != note:
            raise self._not_alone()

    def keep_answers(self, duels: Sequence[Duel], answers: Mapping[str, Answer], alone: bool) -> None:
        """Write one part: a receipt for each of the duels that has an answer.

        `alone`: nobody else may have written it; raises `LedgerError` otherwise. If not, what is there is taken over.
        """
        kept = [
            make_receipt(duel.duel_id, duel.prompt_id, answers[duel.duel_id], self._oracle)
            for duel in duels
            if duel.duel_id in answers
        ]
        if not self._write(kept) and alone:
            raise self._not_alone()

    def _adopt(self) -> bool:
        """Take over the next part of an earlier attempt, if it left one, or its note that no part follows."""
        part = self._keep.find_output(self._part_name)
        if part is not None:
            self._take(part)
            return True
        noted = self._keep.find_output(self._note_name)
        if noted is None:
            return False
        asked = json.loads(noted)["duels"]
        self._write([make_receipt(each["duel_id"], each["prompt_id"], LOST, self._oracle) for each in asked])
        return True

    def _write(self, rows: Sequence[Receipt]) -> bool:
        """Write the next part; returns whether it is ours. What is durable counts, also where another was faster."""
        part = to_parquet(rows, Receipt)
        found = self._keep.write_output(self._part_name, part)
        self._take(found)
        return found == part

    def _not_alone(self) -> LedgerError:
        return LedgerError(
            f"{self._note_name}: another attempt of this step is asking the oracle at this moment, and this one "
            "stopped before it would pay twice; once the other has ended, the same run carries on"
        )

    def _take(self, part: bytes) -> None:
        self.by_duel |= {row.duel_id: row for row in from_parquet(part, Receipt, self._part_name)}
        self._parts += 1

    @property
    def _part_name(self) -> str:
        return f"{RECEIPTS}-{self._name}-{self._parts:04d}.parquet"

    @property
    def _note_name(self) -> str:
        return f"asking-{self._name}-{self._parts:04d}.json"


def make_receipt(duel_id: str, prompt_id: str, answer: Answer, oracle: str) -> Receipt:
    """Return the receipt for an answer."""
    return Receipt(duel_id, prompt_id, oracle, **asdict(answer))


def sum_costs(receipts: Iterable[Receipt]) -> float:
    """Add up what the answers cost; those without a price cost nothing."""
    return sum(row.cost or 0.0 for row in receipts)
