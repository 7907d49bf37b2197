"""Folders go and come back whole, or say which object is damaged."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from pathlib import Path

import pytest
from oatflow.components.errors import DamagedObject, ObjectNotFound, RefusedInput
from oatflow.components.store.local import LocalStore
from oatflow.components.store.transfer import Placed, download_folder, sha256_file, upload_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "shards").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "empty").write_bytes(b"")
    for shard in range(7):
        (folder / "shards" / f"{shard}.safetensors").write_bytes(secrets.token_bytes(100_000))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_comes_back_as_it_went(store: LocalStore, folder: Path, tmp_path: Path) -> None:
    placed = upload_folder(store, folder, "rounds/0/model/")
    download_folder(store, placed, tmp_path / "back")
    assert content(tmp_path / "back") == content(folder)


def test_every_file_is_recorded_with_its_key_size_and_digest(store: LocalStore, folder: Path) -> None:
    placed = upload_folder(store, folder, "p/")
    assert [each.name for each in placed] == sorted(content(folder))
    assert placed[0] == Placed("config.json", "p/config.json", 2, hashlib.sha256(b"{}").hexdigest())


@pytest.mark.parametrize("damage", [lambda data: bytes([data[0] ^ 1]) + data[1:], lambda data: data[:-1]])
def test_one_damaged_byte_is_noticed_by_name_and_nothing_arrives(
    store: LocalStore, folder: Path, tmp_path: Path, damage: object
) -> None:
    placed = upload_folder(store, folder, "p/")
    path = store.folder / "p/shards/3.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedObject) as error:
        download_folder(store, placed, tmp_path / "back")
    expected = next(each.sha256 for each in placed if each.name == "shards/3.safetensors")
    assert str(error.value).startswith("p/shards/3.safetensors: ")
    assert expected in str(error.value) and sha256_file(path) in str(error.value)
    back = content(tmp_path / "back")
    assert "shards/3.safetensors" not in back
    assert back.items() <= content(folder).items()


def test_a_missing_object_is_named(store: LocalStore, folder: Path, tmp_path: Path) -> None:
    placed = upload_folder(store, folder, "p/")
    store.delete("p/config.json")
    with pytest.raises(ObjectNotFound, match=r"p/config\.json"):
        download_folder(store, placed, tmp_path / "back")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", ""])
def test_no_name_leads_out_of_the_folder(store: LocalStore, folder: Path, tmp_path: Path, name: str) -> None:
    placed = replace(upload_folder(store, folder, "p/")[0], name=name)
    with pytest.raises(RefusedInput, match="key="):
        download_folder(store, [placed], tmp_path / "back" / "deep")
    assert not (tmp_path / "back").exists()


def test_an_empty_folder_is_nothing(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert upload_folder(store, tmp_path / "none", "p/") == []
    download_folder(store, [], tmp_path / "back")


def test_a_folder_that_is_not_there_is_refused(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match="no such folder"):
        upload_folder(store, tmp_path / "none", "p/")
