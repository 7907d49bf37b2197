"""One experiment in an object store: read it, begin it, do its steps, commit its rounds."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import DamagedObject, LedgerError, ObjectExists, ObjectNotFound
from ..former_settings import update_settings
from ..records.keep import StepReport, sum_costs, walk_answers
from ..records.plan import STARTING_MODEL, Plan, PolicyPointer
from ..records.records import Preference, Prompt
from ..records.sealed import digest_of, seal_document, unseal_document
from ..records.table import find_rows, from_parquet, to_parquet
from ..records.tables import REPLAY_BUFFER, Table
from ..store.intact import read_intact
from ..store.setting_stores import SettingStores
from ..store.store import Store, open_store
from ..store.transfer import Placed
from . import layout
from .claim import Claim, read_claim, read_document
from .done import Done
from .running import KEPT_STATES, RUNNING, RoundMarks, Running, shorten_mark
from .settings import LedgerSettings
from .step import Step

PAID_STEPS = ("labeling", "evaluation")
"""Steps that may ask an oracle that costs money."""
FIXED_POLICY = "fixed_policy"
"""Fact of a policy step that leaves the starting model as it is."""
STORE_PATIENCE = LedgerSettings().store_patience_seconds
"""How long a step waits for the store before it has read its claim, which says how long its run wants it to."""
PATIENCE = "OATFLOW_STORE_PATIENCE"
"""The environment variable by which a run on one machine gives its steps another STORE_PATIENCE."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What was frozen when the experiment began.

    `settings`: by section. `starting_model`: digest of its weights. `prompts`: the prompt tables, and `dropped`: how
    many prompts were too long; both by split ("train", "eval", and "outside" where preferences made elsewhere join).
    """

    settings: Mapping[str, Mapping[str, Any]]
    starting_model: str
    prompts: Mapping[str, Placed]
    dropped: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return the experiment as a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Experiment:
        """Read an experiment back."""
        prompts = {split: Placed(**placed) for split, placed in body["prompts"].items()}
        return cls(**(body | {"prompts": prompts, "settings": update_settings(body["settings"])}))


@dataclass(frozen=True, slots=True)
class Head:
    """The one pointer: the last finished round, its record's digest, and the fencing token of who may move it on."""

    round: int
    digest: str
    token: int


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A closed round: the digests of its plan and of each step's mark, and of the round before: a chain.

    `running`: digest of the running state after the round; a round may be older than that.
    """

    round: int
    parent: str
    plan: str
    steps: Mapping[str, str]
    running: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON document."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class Ledger:
    """One experiment. Cheap to open; what never changes is read once."""

    store: Store
    patience_seconds: float = 0.0
    _prompts: dict[str, list[Prompt]] = field(default_factory=dict)
    _documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    _checked: dict[str, str] = field(default_factory=dict)
    _works_on: int | None = None

    @classmethod
    def open(cls, uri: str, patience_seconds: float | None = None) -> Ledger:
        """Open the ledger of one experiment for a step, whether the experiment has begun or not.

        Requests are repeated for up to `patience_seconds` while the store is away. A command at a terminal, where a
        person waits, opens ``Ledger(open_store(uri))``.
        """
        if patience_seconds is None:
            patience_seconds = float(os.environ.get(PATIENCE, STORE_PATIENCE))
        return cls(open_store(uri, patience_seconds=patience_seconds), patience_seconds)

    def wait_as_claimed(self, claim: Claim) -> None:
        """From now on wait for a store that is away for as long as the claim's run chose."""
        self.patience_seconds = claim.store_patience_seconds
        self.store = self.store.patient(self.patience_seconds)

    @property
    def setting_stores(self) -> SettingStores:
        """What opens the stores that the experiment's settings name."""
        return SettingStores(self.store.uri, self.patience_seconds)

    @cached_property
    def experiment(self) -> Experiment:
        """What was frozen when the experiment began. Raises `LedgerError` if it never did."""
        body = self.read_document(layout.EXPERIMENT)
        if body is None:
            raise LedgerError(f"{self.store.uri}: there is no experiment here; open_round begins one")
        return Experiment.from_json(body)

    @cached_property
    def head_etag(self) -> tuple[Head, str]:
        """HEAD and its etag, as first read."""
        body, blob = read_document(self.store, layout.HEAD)
        return Head(**body), blob.etag

    def read_head(self) -> Head:
        """Read HEAD afresh."""
        self.forget_head()
        return self.head_etag[0]

    def forget_head(self) -> None:
        """Read HEAD afresh when it is asked for next."""
        self.__dict__.pop("head_etag", None)

    def begin_head(self, head: Head) -> None:
        """Write the pointer of a new experiment; if another run was first, its pointer is used."""
        try:
            self.__dict__["head_etag"] = head, self.store.put_if_absent(layout.HEAD, seal_document(asdict(head)))
        except ObjectExists:
            self.forget_head()

    @property
    def identity(self) -> str:
        """Digest of where the experiment lies, however its server is reached."""
        return digest_of(self.store.uri.partition("?")[0].encode())

    @property
    def name(self) -> str:
        """What the experiment is called: the last part of where it lies."""
        return unquote(urlsplit(self.store.uri).path.rstrip("/").rpartition("/")[2])

    @property
    def seed(self) -> int:
        """The experiment's seed."""
        return int(self.experiment.settings["ledger"]["seed"])

    def train_prompts(self) -> list[Prompt]:
        """Return the prompts that rounds learn from."""
        return self._prompt_table("train")

    def eval_prompts(self) -> list[Prompt]:
        """Return the held-out prompts."""
        return self._prompt_table("eval")

    def outside_preferences(self) -> list[Prompt]:
        """Return the preferences made elsewhere that rounds learn from, if the experiment has any."""
        return self._prompt_table("outside") if "outside" in self.experiment.prompts else []

    def write_prompts(self, split: str, prompts: list[Prompt]) -> Placed:
        """Write a prompt table, and return where it is. It is named by its content: all who write it write the same."""
        data = to_parquet(prompts, Prompt)
        digest = digest_of(data)
        key = layout.prompts_key(split, digest)
        self.store.put(key, data)
        self._prompts[key] = prompts
        return Placed(split, key, len(data), digest)

    def find_claim(self, round_: int) -> Claim | None:
        """Return who works, or worked, on a round."""
        found = read_claim(self.store, round_)
        return found[0] if found else None

    def find_readable_claim(self, round_: int) -> Claim | None:
        """Return the claim of a closed round, which nothing hangs on any more: None where it is damaged."""
        try:
            return self.find_claim(round_)
        except DamagedObject:
            return None

    def read_claim(self, round_: int) -> Claim:
        """Return who works, or worked, on a round. Raises `LedgerError` if nobody ever claimed it."""
        claim = self.find_claim(round_)
        if claim is None:
            raise LedgerError(f"round {round_} was never claimed; open_round does that")
        return claim

    def read_plan(self, round_: int) -> Plan:
        """Return a round's plan. Raises `LedgerError` if it has none."""
        record = self.find_record(round_)
        body = self.read_document(layout.plan_key(round_), record.plan if record else None)
        if body is None:
            raise LedgerError(f"round {round_} has no plan; open_round writes it")
        return Plan.from_json(body)

    def find_done(self, round_: int, room: str) -> Done | None:
        """Return the mark of a finished step, or None. Raises `DamagedObject` if a closed round does not have it."""
        record = self.find_record(round_)
        if record is not None and room not in record.steps:
            return None
        body = self.read_document(layout.done_key(round_, room), record.steps[room] if record else None)
        return Done.from_json(body) if body is not None else None

    def find_record(self, round_: int) -> RoundRecord | None:
        """Return the record of a closed round as the chain has it, or None if the round is not closed.

        Raises:
            DamagedObject: It is missing, or another one than the round was closed with.
        """
        if round_ < 0 or (self._works_on is not None and round_ >= self._works_on):
            return None
        try:
            head = self.head_etag[0]
        except ObjectNotFound:
            return None
        if round_ > head.round:
            return None
        digest = head.digest
        if round_ < head.round:
            running = self.find_running()
            digest = running.records[round_] if running else self._find_child(round_).parent
        body = self.read_document(layout.round_record_key(round_), digest)
        return RoundRecord(**body) if body else None

    def _find_child(self, round_: int) -> RoundRecord:
        """Return the record that follows that of `round_`, which has its digest; without recursion."""
        child, newest = None, self.head_etag[0].round
        for later in range(newest, round_, -1):
            digest = child.parent if child else self.head_etag[0].digest
            child = RoundRecord(**(self.read_document(layout.round_record_key(later), digest) or {}))
        assert child is not None
        return child

    def find_running(self) -> Running | None:
        """Return the running state after the last closed round, or None if it has none.

        None before the first round is closed, and where the last one was closed by a version that wrote no such state.
        """
        head = self.head_etag[0]
        if head.round < 0:
            return None
        record = RoundRecord(**(self.read_document(layout.round_record_key(head.round), head.digest) or {}))
        if record.running is None:
            return None
        return Running.from_json(self.read_document(layout.running_key(head.round, RUNNING), record.running) or {})

    def read_marks(self) -> list[RoundMarks]:
        """Return the marks of all closed rounds, oldest first, in as few reads as the running state allows."""
        running = self.find_running()
        if running is None:
            return [self.gather_marks(round_) for round_ in range(self.head_etag[0].round + 1)]
        lines = self.read_checked(running.marks.key, running.marks.sha256).splitlines()
        return [RoundMarks.from_json(json.loads(line)) for line in lines]

    def list_digests(self) -> list[str]:
        """Return the digests of the records of all closed rounds, oldest first."""
        head = self.head_etag[0]
        if head.round < 0:
            return []
        running = self.find_running()
        before = running.records if running else [self._find_child(round_).parent for round_ in range(head.round)]
        return [*before, head.digest]

    def gather_marks(self, round_: int) -> RoundMarks:
        """Return the marks of one round, read one by one."""
        found = {room: self.find_done(round_, room) for room in self.read_plan(round_).rooms}
        steps = {room: shorten_mark(done) for room, done in found.items() if done}
        return RoundMarks(round_, self.policy_digest(round_), steps)

    def find_answers(self, table: Table[Preference], duels: Collection[str], before: int) -> dict[str, Preference]:
        """Return the oracle's answers to these duels in a table of the rounds before `before`, by the duel's id."""
        running = self.find_running() if before else None
        if running is None or running.round != before - 1:
            return walk_answers(self, table, duels, before)
        placed = running.answers.get(table.name)
        return self.read_answers(placed, duels) if placed else {}

    def read_answers(self, placed: Placed, duels: Collection[str]) -> dict[str, Preference]:
        """Return the answers to these duels in a part of a running state."""
        data = self.read_checked(placed.key, placed.sha256)
        return {row.duel_id: row for row in find_rows(data, Preference, placed.key, "duel_id", duels)}

    def sum_cost(self, before: int) -> float:
        """Return what the oracle has cost in the rounds before `before`."""
        running = self.find_running() if before else None
        if running is not None and running.round == before - 1:
            return running.cost
        reports = (self.read_report(step, each) for each in range(before) for step in PAID_STEPS)
        return sum_costs(reports)

    def policy_after(self, round_: int) -> PolicyPointer:
        """Return the policy that stands when `round_` is over (STARTING_MODEL: before the first)."""
        if round_ == STARTING_MODEL or self._policy_done(round_).facts.get(FIXED_POLICY):
            return PolicyPointer(STARTING_MODEL, self.experiment.starting_model)
        return PolicyPointer(round_, self.policy_digest(round_))

    def policy_digest(self, round_: int) -> str:
        """Name the policy that a round made by its content."""
        done = self._policy_done(round_)
        if done.facts.get(FIXED_POLICY):
            return self.experiment.starting_model
        files = {placed.name: placed.sha256 for placed in done.list_folder("model")}
        return digest_of(seal_document(files))

    def open_step(self, round_: int, room: str, run: str, started: float | None = None, watches: bool = False) -> Step:
        """Begin one step's work as `run`, which must hold the round's claim.

        `started`: when the step began, in seconds since the epoch, if it was before this process did. `watches`:
        another process keeps the claim alive, and this one stops when it does not.
        """
        self.work_on(round_)
        return Step(self, round_, room, run, started, watches)

    def work_on(self, round_: int) -> None:
        """Take the rounds before this one as closed, and this one as open: its documents are not in the chain yet."""
        self._works_on = round_
        head = self.__dict__.get("head_etag")
        if head and head[0].round < round_ - 1:
            self.forget_head()

    def list_outputs(self, step: str, round_: int) -> list[str]:
        """Return the names of a step's outputs; none if the step is not done."""
        done = self.find_done(round_, step)
        return [placed.name for placed in done.outputs] if done else []

    def read_output(self, step: str, name: str, round_: int, as_input: bool = True) -> bytes:
        """Read one output of a finished step.

        `as_input` is for a step that records its inputs; it means nothing here.

        Raises:
            LedgerError: The step has not written it.
            DamagedObject: It is not what the step wrote.
        """
        done = self.find_done(round_, step)
        placed = done.find_output(name) if done else None
        if placed is None:
            raise LedgerError(f"round {round_}: {step} has not written {name}")
        return self.read_checked(placed.key, placed.sha256)

    def read_report(self, step: str, round_: int) -> StepReport | None:
        """Return what a finished step counted and measured, or None if it is not done."""
        done = self.find_done(round_, step)
        return StepReport(done.counts, done.facts, done.timings) if done else None

    def read_checked(self, key: str, sha256: str) -> bytes:
        """Read an object and compare its digest with the one on record."""

        def check_digest(data: bytes) -> bytes:
            found = digest_of(data)
            if found != sha256:
                raise DamagedObject(
                    f"{key}: its SHA-256 is {found}, but {sha256} was written; restore it from a backup"
                )
            return data

        return read_intact(self.store, key, check_digest)[0]

    def read_document(self, key: str, sha256: str | None = None) -> dict[str, Any] | None:
        """Return a sealed document, or None if there is none yet. A document never changes, so it is read once.

        Args:
            key: Where it is.
            sha256: Its digest in the chain, if its round is closed. Then it must be there.

        Raises:
            DamagedObject: It is not what was written, or not what the round was closed with.
        """
        if key not in self._documents:
            try:
                self._documents[key], _ = read_document(self.store, key)
            except ObjectNotFound:
                if sha256 is None:
                    return None
                raise DamagedObject(
                    f"{key} is missing, and its round is closed: restore the object from a backup of the bucket"
                ) from None
        if sha256 is not None and self._checked.get(key) != sha256:
            found = digest_of(seal_document(self._documents[key]))
            if found != sha256:
                raise DamagedObject(
                    f"{key}: its SHA-256 is {found}, but its round was closed with {sha256}: another document is in "
                    "its place; restore it from a backup of the bucket"
                )
            self._checked[key] = sha256
        return self._documents[key]

    def write_document(self, key: str, body: dict[str, Any], store: Store | None = None) -> dict[str, Any]:
        """Write a sealed document once; returns the one that is there, which an earlier attempt may have written.

        `store`: the ledger's own with another patience, if need be.
        """
        store = store or self.store
        data = seal_document(body)
        try:
            store.put_if_absent(key, data)
            self._documents[key] = unseal_document(data, key)
        except ObjectExists:
            self._documents[key], _ = read_document(store, key)
        return self._documents[key]

    def verify_objects(self) -> Iterator[str]:
        """Read every object of every finished round: yields each intact key, raises at the first that is damaged."""
        parent = digest_of(read_document(self.store, layout.EXPERIMENT)[1].data)
        yield layout.EXPERIMENT
        for placed in self.experiment.prompts.values():
            self.read_checked(placed.key, placed.sha256)
            yield placed.key
        for round_ in range(self.read_head().round + 1):
            body, blob = read_document(self.store, layout.round_record_key(round_))
            record = RoundRecord(**body)
            if record.parent != parent:
                raise DamagedObject(
                    f"{layout.round_record_key(round_)}: its parent is {record.parent}, expected {parent}"
                )
            yield from self._verify_round(record)
            parent = digest_of(blob.data)
        if parent != self.head_etag[0].digest and self.head_etag[0].round >= 0:
            raise DamagedObject(f"{layout.HEAD}: it names {self.head_etag[0].digest}, but the chain ends with {parent}")
        yield layout.HEAD
        yield from self._verify_claim(self.head_etag[0].round + 1)

    def _verify_round(self, record: RoundRecord) -> Iterator[str]:
        self.read_checked(layout.plan_key(record.round), record.plan)
        yield layout.plan_key(record.round)
        yield from self._verify_claim(record.round)
        for room, digest in record.steps.items():
            key = layout.done_key(record.round, room)
            done = Done.from_json(unseal_document(self.read_checked(key, digest), key))
            yield key
            for placed in done.outputs:
                if self._is_kept(placed.name, record.round):
                    self.read_checked(placed.key, placed.sha256)
                    yield placed.key
        if record.running is not None:
            key = layout.running_key(record.round, RUNNING)
            running = Running.from_json(unseal_document(self.read_checked(key, record.running), key))
            yield key
            for placed in running.parts if record.round > self.head_etag[0].round - KEPT_STATES else ():
                self.read_checked(placed.key, placed.sha256)
                yield placed.key
        yield layout.round_record_key(record.round)

    def _verify_claim(self, round_: int) -> Iterator[str]:
        """Read a claim. It is no part of the chain, as it changes until the round is closed."""
        if self.find_claim(round_) is not None:
            yield layout.claim_key(round_)

    def _is_kept(self, name: str, round_: int) -> bool:
        """Only the newest optimizer state and replay buffer are sure to be there; everything else is kept for good."""
        return not name.startswith(("optimizer/", REPLAY_BUFFER.name)) or round_ == self.head_etag[0].round

    def _policy_done(self, round_: int) -> Done:
        done = self.find_done(round_, "policy")
        if done is None:
            raise LedgerError(f"round {round_} has made no policy yet")
        return done

    def _prompt_table(self, split: str) -> list[Prompt]:
        placed = self.experiment.prompts[split]
        if placed.key not in self._prompts:
            self._prompts[placed.key] = from_parquet(self.read_checked(placed.key, placed.sha256), Prompt, placed.key)
        return self._prompts[placed.key]
