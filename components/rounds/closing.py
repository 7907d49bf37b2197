"""Close a round: chain its record to the one before, move HEAD, let go of what is no longer needed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .. import progress
from ..errors import ClaimLost, LedgerError, ObjectChanged
from ..ledger import layout, owner
from ..ledger.claim import Claim, verify_claim
from ..ledger.ledger import Head, Ledger, RoundRecord
from ..records.plan import Plan
from ..records.sealed import digest_of, seal_document
from ..store.proof import PROOFS
from .running_state import remove_old_states, write_running_state


def close_round(uri: str, round_: int, run: str) -> Ledger:
    """Commit a round whose steps are all done. Doing it again changes nothing."""
    ledger = Ledger.open(uri)
    with progress.report_step("close", round_, owner.process_start()):
        claim = commit_round(ledger, round_, run)
        if claim is not None:
            remove_leftovers(ledger, round_, claim.keep_optimizers)
    return ledger


def commit_round(ledger: Ledger, round_: int, run: str) -> Claim | None:
    """Write the round's record and move HEAD to it, in a number of store operations that does not grow.

    Raises `LedgerError` if a step is missing, `ClaimLost` if the round is another run's by now: HEAD then carries
    that run's fencing token, and cannot be moved by this one.
    """
    head, etag = ledger.head_etag
    if head.round >= round_:
        return ledger.find_readable_claim(round_)
    claim, _ = verify_claim(ledger.store, round_, run)
    ledger.wait_as_claimed(claim)
    if head.token != claim.token:
        raise ClaimLost(f"round {round_}: HEAD is fenced for token {head.token}, run {run!r} holds {claim.token}")
    ledger.work_on(round_)
    plan = _read_document(ledger, layout.plan_key(round_))
    steps = {room: _digest_document(ledger, layout.done_key(round_, room)) for room in Plan.from_json(plan).rooms}
    running = write_running_state(ledger, round_)
    record = RoundRecord(round_, head.digest, digest_of(seal_document(plan)), steps, running)
    written = seal_document(ledger.write_document(layout.round_record_key(round_), record.to_json()))
    try:
        ledger.store.replace(layout.HEAD, seal_document(asdict(Head(round_, digest_of(written), claim.token))), etag)
    except ObjectChanged as error:
        # The write may have been done while its answer was lost, and another run may have gone on from it.
        if ledger.read_head().round < round_:
            raise ClaimLost(f"round {round_}: another run took it over while run {run!r} closed it") from error
    ledger.forget_head()
    return claim


def remove_leftovers(ledger: Ledger, round_: int, keep_optimizers: int) -> None:
    """Remove what killed attempts left behind in this round, and optimizer states that newer rounds replace."""
    done = ledger.find_done(round_, "policy")
    kept = {placed.key for placed in done.outputs} if done else set()
    kept.add(layout.done_key(round_, "policy"))
    folder = layout.output_key(round_, "policy", "")
    # A killed proof of the store is the first round's to remove: by then there is little to list.
    for entry in list(ledger.store.list("" if round_ == 0 else folder)):
        if entry.key.startswith(PROOFS) or (entry.key.startswith(folder) and entry.key not in kept):
            ledger.store.delete(entry.key)
    gone = round_ - keep_optimizers
    old = ledger.find_done(gone, "policy") if gone >= 0 else None
    for placed in old.list_folder("optimizer") if old else ():
        ledger.store.delete(placed.key)
    remove_old_states(ledger, round_)


def _digest_document(ledger: Ledger, key: str) -> str:
    return digest_of(seal_document(_read_document(ledger, key)))


def _read_document(ledger: Ledger, key: str) -> dict[str, Any]:
    body = ledger.read_document(key)
    if body is None:
        raise LedgerError(f"{key} is missing: that step is not done, and the round cannot be closed")
    return body
