"""A store that breaks its promise is found out before an experiment trusts it."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import pytest
from oatflow.components.errors import ObjectChanged, ObjectExists, UnsafeStore
from oatflow.components.store.local import LocalStore
from oatflow.components.store.proof import prove_conditional_writes


class Generous(LocalStore):
    """Lets as many win as it is told to."""

    def __init__(self, folder: Path, creators: int = 1, swappers: int = 1):
        super().__init__(folder)
        self._creators, self._swappers, self._lock = creators, swappers, Lock()

    def put_if_absent(self, key: str, data: bytes) -> str:
        with self._lock:
            self._creators -= 1
            if self._creators < 0:
                raise ObjectExists(key)
            return self.put(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        with self._lock:
            self._swappers -= 1
            if self._swappers < 0:
                raise ObjectChanged(key)
            return self.put(key, data)


class Forgetful(LocalStore):
    """Tells the one winner that it won, and keeps something else."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        return super().put_if_absent(key, b"something else")


def test_a_store_where_one_wins_is_trusted_and_left_clean(tmp_path: Path) -> None:
    store = Generous(tmp_path)
    prove_conditional_writes(store)
    assert list(store.list("")) == []


def test_a_store_that_lets_three_creators_win_is_refused(tmp_path: Path) -> None:
    store = Generous(tmp_path, creators=3)
    with pytest.raises(UnsafeStore, match=r"create-only.*3 of 8 won.*upgrade"):
        prove_conditional_writes(store)
    assert list(store.list("")) == []


def test_a_store_that_lets_two_swappers_win_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeStore, match=r"compare-and-swap.*2 of 8 won"):
        prove_conditional_writes(Generous(tmp_path, swappers=2))


def test_a_store_where_nobody_wins_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeStore, match="0 of 8 won"):
        prove_conditional_writes(Generous(tmp_path, creators=0))


def test_a_store_that_keeps_other_bytes_than_the_winners_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeStore, match="not what is there"):
        prove_conditional_writes(Forgetful(tmp_path))
