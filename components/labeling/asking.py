"""Asking an oracle in batches, each durable before the next is asked.

The duels are cut into batches in their own order. What the oracle says of a batch becomes a part of the receipts, and
then, with labels drawn, a part of the preferences. Whoever runs the step again adopts the parts that are there and goes
on after their last row, so that nothing depends on where an earlier attempt was killed, or where the oracle gave up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .. import progress
from ..errors import OracleError
from ..oracles.oracle import Answer, Oracle, OracleFailed, SpendingLimit
from ..records.keep import Keep
from ..records.records import Duel, Preference, Receipt, Side
from ..records.tables import Table
from .labels import check_answers, clash_preference, keep_believable, member_preference, unasked_preference
from .receipts import Receipts

TIE = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """What the oracle said.

    Attributes:
        preferences: One for every duel, in order.
        receipts: One for each query.
        seconds: How long this attempt waited.
        unanswered: What failed requests took, of which some were perhaps paid.
    """

    preferences: list[Preference]
    receipts: list[Receipt]
    seconds: float
    unanswered: list[Receipt] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Interview:
    """How an oracle is asked.

    Attributes:
        oracle: Answers the duels.
        batch_size: How many duels are asked in one go.
        label: Returns the label of a duel whose probability is known.
        unreadable_limit: Share of the duels whose answers may be unreadable.
        lost_limit: Share of the duels whose answers may be lost.
        spent: What earlier steps cost.
        ties_are_undecided: Whether a probability of exactly 0.5 says that neither answer is better.
    """

    oracle: Oracle
    batch_size: int
    label: Callable[[Duel, float], Side]
    unreadable_limit: float = 1.0
    lost_limit: float = 1.0
    spent: float = 0.0
    ties_are_undecided: bool = False

    def collect_preferences(
        self,
        keep: Keep,
        table: Table[Preference],
        duels: Sequence[Duel],
        known: Mapping[str, Preference],
        watch: Callable[[int], None],
    ) -> Asked:
        """Get a preference for every duel, in the parts of a table; at least one part is written.

        Nobody is asked about a clash, about a duel that `known` has under its id, or about a duel for the second
        time. Where the spending limit is reached, the duels that are left get a preference that says so. `watch` is
        told how many duels are done. Raises `OracleError`; what was answered before it stands.
        """
        receipts, parts, seconds = Receipts(keep, table.name, self.oracle.identity), _find_parts(keep, table), 0.0
        self._stop_if_another_oracle(receipts.by_duel.values())
        done = table.join_parts(parts)
        most = len(open_duels(duels))
        if self.oracle.spending is not None:
            self.oracle.spending.note_spent(self.spent + receipts.cost)
        self._stop_if_lost(receipts.by_duel.values(), most)
        watch(len(done))
        while not parts or len(done) < len(duels):
            batch = duels[len(done) : len(done) + self.batch_size]
            begun, is_paid_for = time.monotonic(), True
            while is_paid_for and (left := open_duels(batch, receipts.by_duel, known)):
                is_paid_for = self.ask_batch(left, receipts)
            seconds += time.monotonic() - begun
            self._stop_if_unreadable(receipts.by_duel.values(), most)
            self._stop_if_lost(receipts.by_duel.values(), most)
            part = table.to_bytes([self.make_preference(duel, receipts.by_duel, known) for duel in batch])
            parts.append(keep.write_output(table.name_part(len(parts)), part))
            # What is durable counts, also where another attempt of this step was faster.
            done += table.join_parts(parts[-1:])
            watch(len(done))
        return Asked(done, list(receipts.by_duel.values()), seconds, receipts.unanswered)

    def ask_batch(self, duels: Sequence[Duel], receipts: Receipts) -> bool:
        """Ask about the duels, and keep what is answered: all of it, or as much as there was before the oracle failed.

        Returns False where the spending limit is reached; then the others stay without an answer.
        """
        paid = self.oracle.paid
        if paid:
            receipts.note_asked(duels, self.oracle.spending)
        try:
            answers = self.oracle.compare_duels(duels)
        except OracleFailed as failure:
            receipts.keep_answers(duels, self._read_ties(failure.answers), paid)
            if isinstance(failure, SpendingLimit):
                print(failure, flush=True)
                return False
            raise
        receipts.keep_answers(duels, self._read_ties(keep_believable(answers, duels)), paid)
        check_answers(answers, duels, self.oracle.identity)
        return True

    def make_preference(
        self, duel: Duel, receipts: Mapping[str, Receipt], known: Mapping[str, Preference]
    ) -> Preference:
        """Return the duel's preference: the answer to it, with a label if it says who is better."""
        if duel.clash:
            return clash_preference(duel)
        if duel.labelled_by_member:
            return member_preference(duel)
        receipt = receipts.get(duel.duel_id)
        answer = known.get(duel.duel_id) if receipt is None else as_preference(receipt)
        if answer is None:
            return unasked_preference(duel)
        label = self.label(duel, answer.first_wins) if answer.first_wins is not None and not answer.undecided else None
        return replace(answer, prompt_id=duel.prompt_id, chosen=label, synthetic=duel.synthetic)

    def _read_ties(self, answers: Mapping[str, Answer]) -> dict[str, Answer]:
        """Return the answers by duel, with ties as undecided if they count as such."""
        return {
            name: replace(answer, undecided=True) if self.ties_are_undecided and answer.first_wins == TIE else answer
            for name, answer in answers.items()
        }

    def _stop_if_another_oracle(self, receipts: Iterable[Receipt]) -> None:
        others = {row.oracle for row in receipts} - {self.oracle.identity}
        if others:
            raise OracleError(
                f"oracle {self.oracle.identity}: this step's first answers are by {', '.join(sorted(others))}; let "
                "that one answer, and start again"
            )

    def _stop_if_unreadable(self, receipts: Iterable[Receipt], most: int) -> None:
        asked = list(receipts)
        unreadable = [row for row in asked if row.first_wins is None and not row.lost]
        if len(unreadable) > _count_allowed(self.unreadable_limit, most):
            raise OracleError(
                f"oracle {self.oracle.identity}: {len(unreadable)} of {most} answers cannot be read as a verdict, more "
                f"than unreadable_limit={self.unreadable_limit:g} allows; the last was {unreadable[-1].raw[:200]!r}. "
                f"{_count_open(asked, most)} duels of this step are without an answer. "
                "Mend the oracle, or raise unreadable_limit to go on without these labels; nothing is asked twice"
            )

    def _stop_if_lost(self, receipts: Iterable[Receipt], most: int) -> None:
        asked = list(receipts)
        lost = sum(row.lost for row in asked)
        if lost > _count_allowed(self.lost_limit, most):
            raise OracleError(
                f"oracle {self.oracle.identity}: {lost} of {most} answers are lost, more than "
                f"lost_limit={self.lost_limit:g} allows: a process ended, or a connection broke off, after they may "
                f"have been paid for. {_count_open(asked, most)} duels of this step have no answer. Find out why "
                "(killed pods, a proxy that times out), or raise lost_limit to go on without these labels; nothing is "
                "asked twice"
            )


def _count_allowed(limit: float, most: int) -> float:
    """Return how many answers may be missing. One always may, where any may: one refusal ends no small step."""
    return max(limit * most, 1) if limit else 0


def _count_open(receipts: Iterable[Receipt], most: int) -> int:
    """Return how many of the duels have no answer that can be read."""
    return most - sum(row.first_wins is not None for row in receipts)


def open_duels(duels: Iterable[Duel], *answered: Container[str]) -> list[Duel]:
    """Return the duels that the oracle must be asked about: each once, and none that was answered."""
    waiting = {duel.duel_id: duel for duel in duels if not duel.clash and not duel.labelled_by_member}
    return [duel for name, duel in waiting.items() if not any(name in told for told in answered)]


def answers_of(rows: Iterable[Preference]) -> dict[str, Preference]:
    """Return the oracle's own answers by duel: a member's label is none."""
    return {row.duel_id: row for row in rows if row.is_answer}


def as_preference(receipt: Receipt) -> Preference:
    """Return what a receipt says of its duel, without a label."""
    return Preference(
        duel_id=receipt.duel_id,
        prompt_id=receipt.prompt_id,
        clash=False,
        first_wins=receipt.first_wins,
        chosen=None,
        first_reward=receipt.first_reward,
        second_reward=receipt.second_reward,
        oracle=receipt.oracle,
        unreadable=True if receipt.first_wins is None and not receipt.lost else None,
        undecided=True if receipt.undecided else None,
        orders=receipt.orders,
        lost=True if receipt.lost else None,
    )


def report_asked(step: str, round_: int, of: int) -> Callable[[int], None]:
    """Return a function that reports how many duels are done."""
    return lambda done: progress.report_event(step, round_, "work", done=done, of=of)


def _find_parts(keep: Keep, table: Table[Preference]) -> list[bytes]:
    parts: list[bytes] = []
    while (part := keep.find_output(table.name_part(len(parts)))) is not None:
        parts.append(part)
    return parts
