"""Who works on a round: one claimant at a time, with a fencing token that only grows.

A claim is created by If-None-Match and renewed or taken over by compare-and-swap. Whoever takes it over raises the
token; every later commit of the former owner finds a token that is not its own.

A claim is as old as the store says, by its own clock. The clocks of two machines are not compared, so that a fast clock
cannot rob a living run, and a slow one cannot keep a dead run's round. Only a store that does not date its objects
leaves no other way.

A lease that ended while the store was away costs nothing by itself: unless another run has taken the claim over, its
owner renews it by the same compare-and-swap and goes on.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from ..errors import ClaimHeld, ClaimLost, DamagedObject, ObjectChanged, ObjectExists, ObjectNotFound, StoreError
from ..records.sealed import seal_document, unseal_document
from ..store.intact import read_intact
from ..store.store import Blob, Store
from . import layout, owner
from .settings import LedgerSettings

# A keeper that waited for the store renews its claim within this time after the store is back: that is how long its
# last request may hang, and its longest pause.
FAIR_SECONDS = 90.0
_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Claim:
    """One run's right to work on one round for `lease_seconds` from when it was written last.

    Attributes:
        run: The run.
        owner: The process or host that works.
        token: The fencing token.
        lease_seconds: How long the claim holds.
        expires: Its end by the clock of who wrote it, in seconds since the epoch; 0 if it was given up.
        operational: The settings that this run may choose for itself, by section.
        written: When it was written, in seconds of this process's monotonic clock. It is not stored.
    """

    run: str
    owner: owner.Owner
    token: int
    lease_seconds: float
    expires: float
    operational: dict[str, dict[str, Any]] = field(default_factory=dict)
    written: float = field(default_factory=time.monotonic, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the claim as a JSON document."""
        body = asdict(self)
        del body["written"]
        return body

    @classmethod
    def from_json(cls, body: dict[str, Any], age: float | None = None) -> Claim:
        """Read a claim back; `age`: seconds since it was written. If it is not known, this machine's clock decides."""
        if age is None:
            age = time.time() - (body["expires"] - body["lease_seconds"])
        return cls(**(body | {"owner": owner.Owner(**body["owner"]), "written": time.monotonic() - age}))

    @property
    def store_patience_seconds(self) -> float:
        """How long the claim's run repeats its requests while the store is away."""
        # A claim may be older than the setting.
        default = LedgerSettings().store_patience_seconds
        return float(self.operational.get("ledger", {}).get("store_patience_seconds", default))

    @property
    def keep_optimizers(self) -> int:
        """How many optimizer states the claim's run keeps."""
        return int(self.operational.get("ledger", {}).get("keep_optimizers", LedgerSettings().keep_optimizers))

    @property
    def has_lapsed(self) -> bool:
        """Whether its lease is over, so that another run may take it over."""
        return self.expires <= 0 or self._seconds_left < 0

    @property
    def until(self) -> str:
        """When the claim runs out by this machine's clock, for a person."""
        return datetime.fromtimestamp(time.time() + self._seconds_left).astimezone().isoformat(" ", "seconds")

    @property
    def is_free(self) -> bool:
        """Whether another run may take the claim over."""
        return self.has_lapsed or self.owner.is_dead

    @property
    def _seconds_left(self) -> float:
        return self.lease_seconds - (time.monotonic() - self.written)


def read_claim(store: Store, round_: int) -> tuple[Claim, str] | None:
    """Return the round's claim with its etag, or None where nobody ever claimed it."""
    try:
        body, blob = read_document(store, layout.claim_key(round_))
    except ObjectNotFound:
        return None
    return Claim.from_json(body, blob.age), blob.etag


def read_document(store: Store, key: str) -> tuple[dict[str, Any], Blob]:
    """Return a sealed document, and the object that holds it. Raises `ObjectNotFound` and `DamagedObject`."""
    return read_intact(store, key, lambda data: unseal_document(data, key))


def take_claim(store: Store, round_: int, wanted: Claim) -> Claim:
    """Create the claim, adopt it if this run has it already, or take it over where it is free.

    `wanted.token` is the least token that the claim may have. Raises `ClaimHeld`, saying who and until when.
    """
    try:
        store.put_if_absent(layout.claim_key(round_), seal_document(wanted.to_json()))
        return wanted
    except ObjectExists:
        found = read_claim(store, round_)
    if found is None:
        raise ClaimHeld(f"round {round_}: its claim came and went; start again")
    held, etag = found
    if held.run == wanted.run:
        return _swap_claim(store, round_, replace(wanted, token=held.token), etag)
    if not held.is_free:
        raise ClaimHeld(held_by(round_, held))
    return _swap_claim(store, round_, replace(wanted, token=max(wanted.token, held.token + 1)), etag)


def refuse_while_held(store: Store, round_: int, run: str, who: owner.Owner) -> None:
    """Raise `ClaimHeld` if another run works on the experiment whose next round this is.

    Between two rounds, nobody has claimed the next one yet: then a living process behind the round before keeps it.
    """
    found = read_claim(store, round_)
    if found and found[0].run != run and not found[0].is_free:
        raise ClaimHeld(held_by(round_, found[0]))
    try:
        before = read_claim(store, round_ - 1) if found is None and round_ else None
    except DamagedObject:
        # That round is closed: its claim only says whether its run lives on, and the next round has its own.
        before = None
    if before and before[0].owner.pid and before[0].owner != who and not before[0].is_free:
        raise ClaimHeld(held_by(round_ - 1, before[0]))


def verify_claim(store: Store, round_: int, run: str, token: int | None = None) -> tuple[Claim, str]:
    """Return the claim of `run` on the round; raises `ClaimLost` if it is another's by now."""
    found = read_claim(store, round_)
    if found is None:
        raise ClaimLost(f"round {round_}: run {run!r} never claimed it; open_round does that")
    claim, etag = found
    if claim.run != run or token not in (None, claim.token):
        raise ClaimLost(
            f"round {round_} is held by run {claim.run!r} ({claim.owner}), not by run {run!r}, "
            "which may commit nothing more"
        )
    return claim, etag


def renew_claim(store: Store, round_: int, run: str, token: int) -> Claim:
    """Move the claim's expiry on. Raises `ClaimLost`."""
    claim, etag = verify_claim(store, round_, run, token)
    renewed = replace(claim, expires=time.time() + claim.lease_seconds, written=time.monotonic())
    try:
        store.replace(layout.claim_key(round_), seal_document(renewed.to_json()), etag)
    except ObjectChanged:
        # Another step of this same run may have renewed it in between: then it is as good as renewed.
        return verify_claim(store, round_, run, token)[0]
    return renewed


def release_claim(store: Store, round_: int, run: str) -> None:
    """Give the round up: its next run need not wait for the lease to end. Raises `ClaimLost` if it is another's."""
    claim, etag = verify_claim(store, round_, run)
    try:
        store.replace(layout.claim_key(round_), seal_document(replace(claim, expires=0.0).to_json()), etag)
    except ObjectChanged as error:
        raise ClaimLost(f"round {round_}: another run took it over while run {run!r} gave it up") from error


def watch_claim(
    store: Store, round_: int, run: str, token: int | None = None, pause: Callable[[float], object] = time.sleep
) -> Claim:
    """Return the claim of `run`, which another process keeps alive; raises `ClaimLost` when that process is gone.

    A lease that is over is no proof of that: the store may have been away. So the keeper gets FAIR_SECONDS, or one
    lease where that is shorter, to renew the claim, and the same again if the store was away meanwhile.
    """
    claim, _ = verify_claim(store, round_, run, token)
    rest, looks = min(claim.lease_seconds, FAIR_SECONDS) / _LOOKS, 0
    while claim.has_lapsed:
        if looks == _LOOKS:
            raise ClaimLost(
                f"round {round_}: the claim of run {run!r} ran out: the step that kept it alive is gone; the training "
                "stops, and the next run carries the round on"
            )
        pause(rest)
        asked = time.monotonic()
        claim, _ = verify_claim(store, round_, run, token)
        store_was_away = time.monotonic() - asked > max(rest, 1.0)
        looks = 0 if store_was_away else looks + 1
    return claim


@contextmanager
def kept_claim(store: Store, round_: int, run: str) -> Iterator[Claim]:
    """Keep this run's claim alive while the body works. Raises `ClaimLost` if it is another's, now or later."""
    claim = renew_claim(store, round_, run, verify_claim(store, round_, run)[0].token)
    keeper = ClaimKeeper(store, round_, claim)
    keeper.start()
    try:
        yield claim
    finally:
        keeper.stop()
        if keeper.loss is not None:
            raise keeper.loss


class ClaimKeeper:
    """Renews a claim in the background while a step works, and stops the step when the claim is lost.

    `renews`: whether this process keeps the claim alive, or only watches that another one does.
    """

    def __init__(self, store: Store, round_: int, claim: Claim, renews: bool = True):
        self._round, self._claim, self._renews = round_, claim, renews
        self._stopped = threading.Event()
        self._store = store.patient(claim.store_patience_seconds, self._go_on)
        self._thread = threading.Thread(target=self._keep, name="claim keeper", daemon=True)
        self.loss: ClaimLost | None = None

    def start(self) -> None:
        """Begin to look after the claim."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
            # A shell starts background commands deaf to the very signal that a lost claim is told by.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._thread.start()

    def stop(self) -> None:
        """Look after it no more."""
        self._stopped.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stopped.wait(self._claim.lease_seconds / 3):
            try:
                self._claim = self._look()
            except ClaimLost as loss:
                self._give_up(loss)
            except StoreError as error:
                # The store was away for longer than the run wants to wait, or refuses.
                if self._claim.has_lapsed:
                    self._give_up(ClaimLost(f"round {self._round}: the claim ran out while the store failed: {error}"))

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise StoreError("the claim is no longer kept alive")

    def _look(self) -> Claim:
        """Renew the claim, or see that another process does. Waits for a store that is away."""
        what = (self._store, self._round, self._claim.run, self._claim.token)
        return renew_claim(*what) if self._renews else watch_claim(*what, pause=self._stopped.wait)

    def _give_up(self, loss: ClaimLost) -> None:
        if self._stopped.is_set():
            return
        self.loss = loss
        self._stopped.set()
        # Interrupts even a blocking call of the main thread; `Step` turns it into this loss.
        os.kill(os.getpid(), signal.SIGINT)


def _swap_claim(store: Store, round_: int, claim: Claim, etag: str) -> Claim:
    try:
        store.replace(layout.claim_key(round_), seal_document(claim.to_json()), etag)
    except (ObjectChanged, ObjectNotFound) as error:
        raise ClaimHeld(f"round {round_}: another run claimed it in this very moment; start again later") from error
    return claim


def held_by(round_: int, claim: Claim) -> str:
    """Say who holds a round, until when, and what to do."""
    return (
        f"round {round_} is being worked on by run {claim.run!r} ({claim.owner}), whose claim holds until "
        f"{claim.until}. Wait for it, or begin another experiment with --new NAME"
    )
