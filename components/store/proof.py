"""Whether a store keeps its promise of conditional writes: tried, not believed.

There are servers that accept If-None-Match and let three racers win (SeaweedFS up to 4.16); on such a store two runs
would work on the same round.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from ..errors import ObjectChanged, ObjectExists, UnsafeStore
from .store import Store

PROOFS = "_proof/"
"""Begins the keys that a proof writes. One whose process was killed leaves its key behind."""


def prove_conditional_writes(store: Store, racers: int = 8) -> None:
    """Race `racers` creators for one key, then as many swappers; raises `UnsafeStore` unless one wins each time.

    The winner's bytes must be what is there afterwards. Leaves nothing behind.
    """
    key = f"{PROOFS}{secrets.token_hex(8)}"
    try:
        etag = _race_writers(store, key, racers, "create-only", lambda data: store.put_if_absent(key, data))
        _race_writers(store, key, racers, "compare-and-swap", lambda data: store.replace(key, data, etag))
    finally:
        store.delete(key)


def _race_writers(store: Store, key: str, racers: int, kind: str, write: Callable[[bytes], str]) -> str:
    """Return the etag of what the winner wrote."""
    start = Barrier(racers)

    def run(racer: int) -> bytes | None:
        data = f"{kind} {racer} {secrets.token_hex(8)}".encode()
        start.wait()
        try:
            write(data)
        except (ObjectExists, ObjectChanged):
            return None
        return data

    with ThreadPoolExecutor(racers) as pool:
        winners = [data for data in pool.map(run, range(racers)) if data is not None]
    if len(winners) != 1:
        raise UnsafeStore(_describe_unsafe(store, kind, f"{len(winners)} of {racers} won, not one"))
    found = store.get(key)
    if found.data != winners[0]:
        raise UnsafeStore(_describe_unsafe(store, kind, "the winner's bytes are not what is there"))
    return found.etag


def _describe_unsafe(store: Store, kind: str, finding: str) -> str:
    return (
        f"ledger={store.uri}: {kind} writes that race are not safe here: {finding}; use another store "
        "(SeaweedFS up to 4.16 breaks it: upgrade; 4.48, MinIO and AWS keep it)"
    )
