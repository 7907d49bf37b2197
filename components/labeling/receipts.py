"""The receipts of one interview: what was asked and answered, durable before anything is made of it.

Where questions cost money, a batch is noted before it is asked, with what it may cost at most. A note without a receipt
means that a process ended in between: those duels were perhaps paid for, so they count as queries, their highest
possible cost counts as paid, and they are never asked again. Of two attempts that live at once, the one that finds the
other's note or part in the place of its own stops: the other asks on.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from ..errors import LedgerError
from ..oracles.oracle import Answer
from ..oracles.spending import Spending
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
        self.unanswered: list[Receipt] = []
        while self._adopt():
            pass

    @property
    def cost(self) -> float:
        """What was paid, or perhaps paid; answers without a price cost nothing."""
        return sum(row.cost or 0.0 for row in [*self.by_duel.values(), *self.unanswered])

    def note_asked(self, duels: Sequence[Duel], spending: Spending | None) -> None:
        """Say durably that these duels are about to be asked. Raises `LedgerError` if another attempt is asking.

        `spending` knows what they may cost at most; that is noted too, and again before they cost more.
        """
        asked = [{"duel_id": duel.duel_id, "prompt_id": duel.prompt_id} for duel in duels]
        notes = 0

        def write_note(most: float | None) -> None:
            nonlocal notes
            note = json.dumps({"attempt": self._attempt, "most": most, "duels": asked}).encode()
            if self._keep.write_output(self._name_note(notes), note) != note:
                raise self._not_alone()
            notes += 1

        if spending is None:
            write_note(None)
        else:
            spending.begin_batch(duels, write_note)

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
        notes: list[bytes] = []
        while (note := self._keep.find_output(self._name_note(len(notes)))) is not None:
            notes.append(note)
        if not notes:
            return False
        asked, most = self._close_batch(notes)
        lost = replace(LOST, cost=None if most is None else most / len(asked))
        self._write([make_receipt(each["duel_id"], each["prompt_id"], lost, self._oracle) for each in asked])
        return True

    def _close_batch(self, notes: Sequence[bytes]) -> tuple[list[dict[str, str]], float | None]:
        """Return the duels of an earlier attempt's batch, and what it may have cost at most.

        The attempt may still live. So the place of its next note is taken: it stops before it spends more than that.
        """
        said = [json.loads(note) for note in notes]
        while said[-1].get("most") is not None:
            closing = json.dumps({"attempt": self._attempt, "closed": True}).encode()
            said.append(json.loads(self._keep.write_output(self._name_note(len(said)), closing)))
        last = next(note for note in reversed(said) if "duels" in note)
        return last["duels"], last.get("most")

    def _write(self, rows: Sequence[Receipt]) -> bool:
        """Write the next part; returns whether it is ours. What is durable counts, also where another was faster."""
        part = to_parquet(rows, Receipt)
        found = self._keep.write_output(self._part_name, part)
        self._take(found)
        return found == part

    def _not_alone(self) -> LedgerError:
        return LedgerError(
            f"{self._name_note(0)}: another attempt of this step is asking the oracle at this moment, and this one "
            "stopped before it would pay twice; once the other has ended, the same run carries on"
        )

    def _take(self, part: bytes) -> None:
        rows = from_parquet(part, Receipt, self._part_name)
        self.by_duel |= {row.duel_id: row for row in rows if not row.unanswered}
        self.unanswered += [row for row in rows if row.unanswered]
        self._parts += 1

    @property
    def _part_name(self) -> str:
        return f"{RECEIPTS}-{self._name}-{self._parts:04d}.parquet"

    def _name_note(self, number: int) -> str:
        """Return the name of the batch's first note, or of a later one that says a higher cost."""
        return f"asking-{self._name}-{self._parts:04d}{f'-{number:04d}' if number else ''}.json"


def make_receipt(duel_id: str, prompt_id: str, answer: Answer, oracle: str) -> Receipt:
    """Return the receipt for an answer."""
    return Receipt(duel_id, prompt_id, oracle, **asdict(answer))
