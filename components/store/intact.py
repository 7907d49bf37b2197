"""Reads an object whose content can be checked; a second time, if the first answer was damaged on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import DamagedObject
from .store import Blob, Store

Read = TypeVar("Read")


def read_intact(store: Store, key: str, check: Callable[[bytes], Read]) -> tuple[Read, Blob]:
    """Return what `check` makes of an object's bytes, and the object as it was read.

    Raises:
        DamagedObject: `check` raised it twice in a row: it is the object that is damaged, not an answer on its way.
    """
    blob = store.get(key)
    try:
        return check(blob.data), blob
    except DamagedObject:
        blob = store.get(key)
        return check(blob.data), blob
