"""KFP artifacts as windows on the ledger: small copies and manifests to look at, never the truth itself."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DamagedObject, LedgerError
from ..records.sealed import digest_of, seal_document
from ..records.table import read_table
from . import layout
from .done import Done
from .ledger import Ledger


def show_table(window: Any, ledger: Ledger, round_: int, room: str, names: str) -> None:
    """Fill a Dataset artifact with a copy of the Parquet outputs whose names match a pattern, joined in order."""
    names_there = (placed.name for placed in _read_done(ledger, round_, room).outputs)
    parts = sorted(fnmatch.filter(names_there, names))
    tables = [read_table(ledger.read_output(room, part, round_)) for part in parts]
    if tables:
        pq.write_table(pa.concat_tables(tables, promote_options="default"), window.path)
    _describe_step(window, ledger, round_, room)


def show_folder(window: Any, ledger: Ledger, round_: int, room: str, name: str) -> None:
    """Fill a Model artifact with the list of a folder's files; the files themselves stay where they are.

    The metadata names the folder: its address in the store (`uri`), the round, and the digest of the step's record,
    which holds the digest of every file.
    """
    files = _read_done(ledger, round_, room).list_folder(name)
    lines = [f"{placed.sha256}  {placed.size:>12}  {placed.key}\n" for placed in files]
    Path(window.path).write_text("".join(lines))
    _describe_step(window, ledger, round_, room)
    window.metadata["uri"] = folder_uri(ledger, round_, room, name)


def show_files(window: Any, ledger: Ledger, round_: int, room: str) -> None:
    """Fill an artifact with the list of a step's files; it stays empty where the experiment has no such step."""
    done = ledger.find_done(round_, room)
    files = done.outputs if done else ()
    Path(window.path).write_text("".join(f"{placed.sha256}  {placed.size:>12}  {placed.key}\n" for placed in files))
    if done:
        _describe_step(window, ledger, round_, room)


def folder_uri(ledger: Ledger, round_: int, room: str, name: str) -> str:
    """Return where a folder that a step wrote lies in the store, without the address of its server.

    Where the step wrote none, because the policy is fixed: the step's own place.
    """
    files = _read_done(ledger, round_, room).list_folder(name)
    key = files[0].key.removesuffix(files[0].name) if files else layout.output_key(round_, room, "")
    return f"{ledger.store.uri.partition('?')[0].rstrip('/')}/{key.rstrip('/')}"


def check_window(window: Any, ledger: Ledger, round_: int, room: str) -> None:
    """Refuse to go on from a window that shows something else than the ledger holds.

    Raises `DamagedObject` naming both digests: then the KFP run and the ledger are not of the same round. A room that
    the experiment does without has nothing to check.
    """
    if room not in ledger.read_plan(round_).rooms:
        return
    expected, shown = _digest_done(_read_done(ledger, round_, room)), window.metadata.get("digest")
    if shown != expected:
        raise DamagedObject(f"round {round_}: the artifact of {room} shows {shown}, the ledger holds {expected}")


def _describe_step(window: Any, ledger: Ledger, round_: int, room: str) -> None:
    done = _read_done(ledger, round_, room)
    window.metadata.update(digest=_digest_done(done), ledger=ledger.store.uri, round=round_, **done.counts)


def _read_done(ledger: Ledger, round_: int, room: str) -> Done:
    done = ledger.find_done(round_, room)
    if done is None:
        raise LedgerError(f"round {round_}: {room} is not done")
    return done


def _digest_done(done: Done) -> str:
    return digest_of(seal_document(done.to_json()))
