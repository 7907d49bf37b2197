"""Asking an oracle in batches, each durable before the next is asked: a kill can lose no more than the batch in flight.

The duels are cut into batches in their own order, and each batch becomes one Parquet part. Whoever runs the step
again adopts the parts that are there and goes on after their last row, so that nothing depends on where an earlier
attempt was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..ledger.step import Step
from ..records.records import Duel, Preference, Side
from ..records.table import from_parts, to_parquet
from .labels import MEMBER, by_member, checked, clash
from .oracle import Answer, Oracle


@dataclass(frozen=True, slots=True)
class Asked:
    """One preference for every duel, in order, and the seconds that this attempt waited for the oracle."""

    preferences: list[Preference]
    seconds: float


@dataclass(frozen=True, slots=True)
class Interview:
    """Whom to ask, how many duels in one go, and how a duel's probability becomes its label."""

    oracle: Oracle
    batch_size: int
    label: Callable[[Duel, float], Side]

    def conduct(
        self,
        step: Step,
        name: str,
        duels: Sequence[Duel],
        known: Mapping[str, Preference],
        watch: Callable[[int], None],
    ) -> Asked:
        """Get a preference for every duel, in parts ``NAME-0000.parquet`` and so on; at least one part is written.

        Nobody is asked about a clash, about a duel that `known` has under its id, or about a duel for the second
        time. `watch` is told how many duels are done. Raises `OracleError`; the parts before it stand.
        """
        parts = _adopt(step, name)
        done, seconds = join(parts), 0.0
        answered = {**known, **answers_of(done)}
        watch(len(done))
        while not parts or len(done) < len(duels):
            batch = duels[len(done) : len(done) + self.batch_size]
            step.verify()
            begun = time.monotonic()
            told = {**answered, **self.ask(batch, answered)}
            seconds += time.monotonic() - begun
            part = to_parquet([self.labelled(duel, told) for duel in batch], Preference)
            parts.append(step.write(part_name(name, len(parts)), part))
            # What is durable counts, also where another attempt of this step was faster.
            done += (rows := join(parts[-1:]))
            answered |= answers_of(rows)
            watch(len(done))
        return Asked(done, seconds)

    def ask(self, batch: Sequence[Duel], answered: Mapping[str, Preference]) -> dict[str, Preference]:
        """Ask about the duels that are still open; returns the answers by duel, not yet labelled."""
        new = list({duel.duel_id: duel for duel in batch if _is_open(duel, answered)}.values())
        answers = checked(self.oracle.compare(new), new, self.oracle.identity) if new else ()
        return {
            duel.duel_id: _unlabelled(duel, answer, self.oracle.identity)
            for duel, answer in zip(new, answers, strict=True)
        }

    def labelled(self, duel: Duel, answered: Mapping[str, Preference]) -> Preference:
        """Return the duel's preference: the answer to it with its label; of a clash or a member's pair, without one."""
        if duel.clash:
            return clash(duel)
        if duel.labelled_by_member:
            return by_member(duel)
        answer = answered[duel.duel_id]
        assert answer.first_wins is not None
        label = self.label(duel, answer.first_wins)
        return replace(answer, prompt_id=duel.prompt_id, chosen=label, synthetic=duel.synthetic)


def part_name(name: str, number: int) -> str:
    """Name one part."""
    return f"{name}-{number:04d}.parquet"


def join(parts: Iterable[bytes]) -> list[Preference]:
    """Read parts in the order given."""
    return from_parts(parts, Preference, "preferences")


def answers_of(rows: Iterable[Preference]) -> dict[str, Preference]:
    """Return the oracle's own answers by duel: a member's label is none."""
    return {row.duel_id: row for row in rows if row.oracle and not row.oracle.startswith(MEMBER)}


def _adopt(step: Step, name: str) -> list[bytes]:
    parts: list[bytes] = []
    while (part := step.existing(part_name(name, len(parts)))) is not None:
        parts.append(part)
    return parts


def _is_open(duel: Duel, answered: Mapping[str, Preference]) -> bool:
    return not duel.clash and not duel.labelled_by_member and duel.duel_id not in answered


def _unlabelled(duel: Duel, answer: Answer, oracle: str) -> Preference:
    return Preference(
        duel_id=duel.duel_id,
        prompt_id=duel.prompt_id,
        clash=False,
        first_wins=float(answer.first_wins),
        chosen=None,
        first_reward=answer.first_reward,
        second_reward=answer.second_reward,
        oracle=oracle,
    )
