"""What every store promises, asked of a folder and of a real S3 server."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from oatflow.components.errors import ObjectChanged, ObjectExists, ObjectNotFound, RefusedInput
from oatflow.components.store.proof import prove_conditional_writes
from oatflow.components.store.store import Store, open_store


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store((tmp_path / "store with space").as_uri())
    return open_store(request.getfixturevalue("s3_store_uri")("conformance"))


def race(racers: int, write: Callable[[bytes], str]) -> list[bytes]:
    """Let all write at once, each its own bytes; returns what the winners wrote."""
    start = Barrier(racers)

    def run(racer: int) -> bytes | None:
        start.wait()
        try:
            write(b"racer %d" % racer)
        except (ObjectExists, ObjectChanged):
            return None
        return b"racer %d" % racer

    with ThreadPoolExecutor(racers) as pool:
        return [data for data in pool.map(run, range(racers)) if data is not None]


def test_what_was_written_is_read_under_the_etag_of_the_write(store: Store) -> None:
    etag = store.put("a/b.json", b"one")
    assert (store.get("a/b.json").data, store.get("a/b.json").etag) == (b"one", etag)
    assert store.put("a/b.json", b"two") != etag
    assert store.get("a/b.json").data == b"two"


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty", b"")
    assert store.get("empty").data == b""
    assert [(entry.key, entry.size) for entry in store.list("")] == [("empty", 0)]


def test_there_is_nothing_under_a_key_never_written(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound, match="rounds/7"):
        store.get("rounds/7")
    with pytest.raises(ObjectNotFound, match="rounds/7"):
        store.download("rounds/7", tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_folder_is_no_object(store: Store) -> None:
    store.put("rounds/7/claim.json", b"{}")
    with pytest.raises(ObjectNotFound):
        store.get("rounds/7")


def test_only_the_first_creation_counts(store: Store) -> None:
    etag = store.put_if_absent("claim", b"first")
    with pytest.raises(ObjectExists, match="claim"):
        store.put_if_absent("claim", b"second")
    # Equal bytes are no excuse: who did not create it has not won it.
    with pytest.raises(ObjectExists, match="claim"):
        store.put_if_absent("claim", b"first")
    assert (store.get("claim").data, store.get("claim").etag) == (b"first", etag)


def test_a_swap_needs_the_version_that_is_there(store: Store) -> None:
    first = store.put("HEAD", b"0")
    second = store.replace("HEAD", b"1", first)
    with pytest.raises(ObjectChanged, match="HEAD"):
        store.replace("HEAD", b"2", first)
    assert store.get("HEAD").data == b"1"
    assert store.replace("HEAD", b"2", second) == store.get("HEAD").etag


def test_nothing_cannot_be_swapped(store: Store) -> None:
    with pytest.raises((ObjectNotFound, ObjectChanged), match="HEAD"):
        store.replace("HEAD", b"1", "0" * 32)
    assert list(store.list("")) == []


def test_deleted_is_gone_and_may_be_created_anew(store: Store) -> None:
    store.put_if_absent("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    with pytest.raises(ObjectNotFound):
        store.get("a/b")
    assert list(store.list("")) == []
    store.put_if_absent("a/b", b"2")


def test_a_listing_is_in_the_order_of_the_keys_and_only_of_the_prefix(store: Store) -> None:
    keys = ["a/b", "a-b", "a.b", "a/c/d", "b", "ab"]
    for key in keys:
        store.put(key, key.encode())
    assert [entry.key for entry in store.list("")] == sorted(keys)
    assert [entry.key for entry in store.list("a")] == ["a-b", "a.b", "a/b", "a/c/d", "ab"]
    assert [entry.key for entry in store.list("a/")] == ["a/b", "a/c/d"]
    assert [entry.key for entry in store.list("a/c")] == ["a/c/d"]
    assert [entry.key for entry in store.list("no/such/")] == []
    assert {entry.size for entry in store.list("a/c/")} == {5}


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../outside", "a/../../b", "a//b", "a/", "./a", "a\\b", "a\nb"])
def test_no_key_leads_out_of_the_store(store: Store, key: str) -> None:
    with pytest.raises(RefusedInput, match="key="):
        store.put(key, b"")
    with pytest.raises(RefusedInput, match="key="):
        store.get(key)


def test_names_may_be_of_any_language(store: Store) -> None:
    store.put("Modèle +1%20?&=#/重み", b"x")
    assert [entry.key for entry in store.list("Modèle")] == ["Modèle +1%20?&=#/重み"]
    assert store.get("Modèle +1%20?&=#/重み").data == b"x"


def test_a_file_of_any_size_comes_back_as_it_went(store: Store, tmp_path: Path) -> None:
    for size in (0, 1, 3_000_001):
        (tmp_path / "there").write_bytes(secrets.token_bytes(size))
        store.upload("file", tmp_path / "there")
        store.download("file", tmp_path / "new" / "back")
        assert (tmp_path / "new" / "back").read_bytes() == (tmp_path / "there").read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["back"]


def test_eight_claimants_get_one_winner_twenty_times(store: Store) -> None:
    for attempt in range(20):
        winners = race(8, lambda data, key=f"claim-{attempt}": store.put_if_absent(key, data))
        assert len(winners) == 1
        assert store.get(f"claim-{attempt}").data == winners[0]


def test_of_racing_swappers_one_wins(store: Store) -> None:
    etag = store.put("HEAD", b"start")
    winners = race(4, lambda data: store.replace("HEAD", data, etag))
    assert len(winners) == 1
    assert store.get("HEAD").data == winners[0]


def test_this_store_can_be_shared(store: Store) -> None:
    prove_conditional_writes(store)
    assert list(store.list("")) == []


def test_an_objects_age_is_counted_from_its_last_write(store: Store) -> None:
    etag = store.put("claim", b"one")
    time.sleep(2.2)
    assert 0.2 <= (store.get("claim").age or 0.0) < 10
    store.replace("claim", b"two", etag)
    assert (store.get("claim").age or 0.0) < 0.9
