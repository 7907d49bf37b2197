"""Extends the running state of an experiment by a round that is about to be closed; see `ledger.running`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from ..ledger import layout
from ..ledger.ledger import PAID_STEPS, Ledger
from ..ledger.running import KEPT_STATES, RUNNING, Running
from ..records.keep import read_table, sum_costs
from ..records.records import Preference
from ..records.sealed import digest_of, seal_document
from ..records.table import append_rows, find_rows, to_parquet
from ..records.tables import JUDGEMENTS, PREFERENCES, REPLAY_BUFFER, Table
from ..store.transfer import Placed

KEPT_TABLES = (PREFERENCES, JUDGEMENTS)
"""Tables whose answers later rounds look up."""
MARKS = "marks.jsonl"


@dataclass(frozen=True, slots=True)
class State:
    """A running state in memory: the objects that `Running` names. They are extended without being read.

    Attributes:
        answers: Parquet files, by the table's name.
        marks: One line of JSON for each round.
    """

    round: int = -1
    records: tuple[str, ...] = ()
    cost: float = 0.0
    answers: dict[str, bytes] = field(default_factory=dict)
    marks: bytes = b""


def write_running_state(ledger: Ledger, round_: int) -> str:
    """Write the running state after a round whose steps are all done; returns its digest."""
    state = read_state(ledger)
    for each in range(state.round + 1, round_ + 1):
        state = extend_state(ledger, state, each)
    running = Running(
        round=round_,
        records=state.records,
        cost=state.cost,
        answers={name: _write_part(ledger, round_, f"{name}.parquet", data) for name, data in state.answers.items()},
        marks=_write_part(ledger, round_, MARKS, state.marks),
    )
    written = ledger.write_document(layout.running_key(round_, RUNNING), running.to_json())
    return digest_of(seal_document(written))


def read_state(ledger: Ledger) -> State:
    """Return the running state after the last closed round; an empty one where there is none."""
    running = ledger.find_running()
    if running is None:
        return State()
    answers = {name: ledger.read_checked(placed.key, placed.sha256) for name, placed in running.answers.items()}
    marks = ledger.read_checked(running.marks.key, running.marks.sha256)
    return State(running.round, running.records, running.cost, answers, marks)


def extend_state(ledger: Ledger, state: State, round_: int) -> State:
    """Return the running state after `round_`, from the one after the round before."""
    records = state.records
    if (before := ledger.find_record(round_ - 1)) is not None:
        records = (*records, digest_of(seal_document(before.to_json())))
    answers = {table.name: _add_answers(ledger, state, table, round_) for table in KEPT_TABLES}
    return replace(
        state,
        round=round_,
        records=records,
        cost=state.cost + sum_costs(ledger.read_report(step, round_) for step in PAID_STEPS),
        answers={name: data for name, data in answers.items() if data},
        marks=state.marks + json.dumps(ledger.gather_marks(round_).to_json(), sort_keys=True).encode() + b"\n",
    )


def remove_old_states(ledger: Ledger, round_: int) -> None:
    """Remove the large parts of a running state, and the replay buffer, that newer ones replace."""
    if (old := round_ - KEPT_STATES) >= 0:
        for name in (MARKS, *(f"{table.name}.parquet" for table in KEPT_TABLES)):
            ledger.store.delete(layout.running_key(old, name))
        if ledger.read_plan(old).learns_rewards:
            ledger.store.delete(layout.output_key(old, REPLAY_BUFFER.step, REPLAY_BUFFER.name))


def _add_answers(ledger: Ledger, state: State, table: Table[Preference], round_: int) -> bytes:
    """Return the answers of all rounds so far in a table; a duel that was answered before keeps its first row."""
    found = {row.duel_id: row for row in read_table(ledger, table, round_) if row.is_answer}
    data = state.answers.get(table.name, b"")
    if not found:
        return data
    if not data:
        return to_parquet(list(found.values()), Preference)
    known = {row.duel_id for row in find_rows(data, Preference, table.name, "duel_id", found)}
    new = [row for name, row in found.items() if name not in known]
    return append_rows(data, new, Preference) if new else data


def _write_part(ledger: Ledger, round_: int, name: str, data: bytes) -> Placed:
    """Write a part of the state. An earlier attempt made the same of the same rounds; it is written over."""
    key = layout.running_key(round_, name)
    ledger.store.put(key, data)
    return Placed(name, key, len(data), digest_of(data))
