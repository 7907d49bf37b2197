"""The S3 store on a real server, where a folder could not do the same."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from oatflow.components.errors import DamagedObject, StoreRefused
from oatflow.components.store.s3 import S3Store
from oatflow.components.store.store import open_store
from oatflow.components.store.transfer import download_folder, sha256_file, upload_folder

pytestmark = pytest.mark.slow

S3Uri = Callable[[str], str]


def test_a_file_of_many_parts_comes_back_as_it_went(s3_store_uri: S3Uri, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(secrets.token_bytes(70_000_001))
    store = open_store(s3_store_uri("parts"))
    store.upload("large", tmp_path / "large")
    store.download("large", tmp_path / "back")
    assert sha256_file(tmp_path / "back") == sha256_file(tmp_path / "large")


def test_a_flipped_byte_on_the_server_is_noticed_by_name(s3_store_uri: S3Uri, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(bytes(100_000))
    store = open_store(s3_store_uri("damage"))
    placed = upload_folder(store, tmp_path / "model", "model/")
    store.put("model/weights", bytes(99_999) + b"\1")
    with pytest.raises(DamagedObject, match="model/weights"):
        download_folder(store, placed, tmp_path / "back")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_keys_are_refused_and_not_printed(s3_store_uri: S3Uri, name: str) -> None:
    store = S3Store.open(s3_store_uri("keys"), {**os.environ, name: "wrong-and-not-for-print"})
    with pytest.raises(StoreRefused, match="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY") as refused:
        store.put("a", b"")
    assert "wrong-and-not-for-print" not in str(refused.value)


def test_a_bucket_that_is_not_there_is_refused(s3_store_uri: S3Uri) -> None:
    store = open_store(s3_store_uri("bucket").replace("s3://oatflow/", "s3://no-such-bucket/"))
    with pytest.raises(StoreRefused, match="no bucket 'no-such-bucket'"):
        store.get("a")


def test_a_listing_of_more_than_one_page_is_whole_and_in_order(s3_store_uri: S3Uri) -> None:
    store = open_store(s3_store_uri("pages"))
    keys = sorted(f"a{'-/'[i % 2]}{i:04d}" for i in range(1_010))
    for key in keys:
        store.put(key, b"")
    assert [entry.key for entry in store.list("a")] == keys
