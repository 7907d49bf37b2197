"""The store that is a folder."""

from __future__ import annotations

import hashlib
import multiprocessing
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from oatflow.components.errors import ObjectChanged, RefusedInput
from oatflow.components.store.files import write_whole
from oatflow.components.store.local import LocalStore
from oatflow.components.store.store import open_store


def add_one(uri: str, times: int, start: Barrier) -> None:
    store = open_store(uri)
    start.wait()
    for _ in range(times):
        while True:
            there = store.get("count")
            try:
                store.replace("count", str(int(there.data) + 1).encode(), there.etag)
                break
            except ObjectChanged:
                continue


@pytest.mark.slow
def test_counting_by_swaps_loses_nothing_between_processes(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    store.put("count", b"0")
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(4)
    counters = [spawn.Process(target=add_one, args=(tmp_path.as_uri(), 300, start)) for _ in range(4)]
    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join()
    assert store.get("count").data == b"1200"


def test_the_etag_is_the_sha256_of_the_content(tmp_path: Path) -> None:
    assert LocalStore(tmp_path).put("a", b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_what_a_killed_writer_left_is_no_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"1")
    (tmp_path / "a" / ".oatflow-partial-0123").write_bytes(b"half")
    assert [entry.key for entry in store.list("")] == ["a/b"]
    with pytest.raises(RefusedInput, match="choose another"):
        store.get("a/.oatflow-partial-0123")


def test_a_write_leaves_nothing_but_the_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    etag = store.put_if_absent("a", b"1")
    store.replace("a", b"2", etag)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".oatflow-lock", "a"]


@pytest.mark.parametrize("uri", ["file://relative/path", "file:", "file:///a?endpoint=http://b", "http://a/b", "a"])
def test_a_uri_that_is_not_a_folder_is_refused(uri: str) -> None:
    with pytest.raises(RefusedInput, match="ledger="):
        open_store(uri)


def test_an_age_does_not_depend_on_this_processes_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put("claim", b"one")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    time.sleep(0.3)
    assert 0.2 < store.get("claim").age < 10


def test_a_file_is_old_or_new_and_never_half_written(tmp_path):
    path, data = tmp_path / "folder" / "report.html", [bytes([letter]) * 200_000 for letter in b"ab"]
    write_whole(path, data[0])
    linked = tmp_path / "link.html"
    linked.symlink_to(path)
    writer = threading.Thread(target=lambda: [write_whole(linked, data[number % 2]) for number in range(50)])
    writer.start()
    seen = {path.read_bytes() for _ in range(200)}
    writer.join()
    assert seen <= set(data) and linked.is_symlink()
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    write_whole(Path("/dev/null"), b"a device takes the bytes as they are")
    assert Path("/dev/null").is_char_device()
