"""A model as a folder in Hugging Face layout: find it, check it, name it by its content.

Weights are safetensors and nothing else; a folder that brings code or pickles of its own is refused.
"""

from __future__ import annotations

import fnmatch
import json
import os
import tempfile
from pathlib import Path

from .errors import ModelError
from .ledger.sealed import digest_of, seal
from .store.store import open_store
from .store.transfer import sha256_file

MODELS = "OATFLOW_MODELS"
_BUILT_IN = "oatflow:"
_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def resolve_pretrain(name: str) -> Path:
    """Return the folder that a name stands for.

    It is that folder itself, a model of ours below OATFLOW_MODELS, or a copy of a model on the hub or in a store
    (``s3://bucket/folder?endpoint=...``), fetched once for each host.
    """
    if not name:
        raise ModelError("policy.pretrain='': name the starting model, a folder or a hub name")
    if name.startswith(_BUILT_IN):
        folder = Path(os.environ.get(MODELS, ".oatflow/models")) / name.removeprefix(_BUILT_IN)
        if not folder.is_dir():
            raise ModelError(f"policy.pretrain={name!r}: not built yet at {folder}; `oatflow align` builds it")
        return folder
    if name.startswith("s3://"):
        return _from_store(name)
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"policy.pretrain={name!r}: there is no such folder")
    return _from_hub(name)


def check_model_folder(folder: Path) -> None:
    """Raise `ModelError` unless the folder has a configuration, a tokenizer, and all its weights as safetensors."""
    problem = _problem(folder)
    if problem:
        raise ModelError(f"policy.pretrain={str(folder)!r}: {problem}")


def model_digest(folder: Path) -> str:
    """Name a model by the SHA-256 of its files' digests."""
    files = sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)})
    return digest_of(seal({path.name: sha256_file(path) for path in files}))


def _problem(folder: Path) -> str | None:
    if not (folder / "config.json").is_file():
        return "no config.json in it; give a folder in Hugging Face layout"
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        found = f", only {', '.join(pickled)}, which can run code when loaded" if pickled else ""
        return f"no *.safetensors weights in it{found}; save the model with safe_serialization"
    missing = _missing_shards(folder)
    if missing:
        return f"weights are missing: {', '.join(missing)}; copy the whole folder"
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        return "no tokenizer in it (tokenizer.json); save the tokenizer beside the model"
    if "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        return "it brings code of its own (auto_map), which is not run; use an architecture that transformers has"
    return None


def _missing_shards(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sorted(shard for shard in shards if not (folder / shard).is_file())


def _from_store(uri: str) -> Path:
    """Fetch a model from a store; a copy that is already here, and whole, is taken."""
    folder = Path(tempfile.gettempdir()) / "oatflow-models" / digest_of(uri.encode())[:16]
    store = open_store(uri)
    there = [entry for entry in store.list("") if any(fnmatch.fnmatch(entry.key, each) for each in _PATTERNS)]
    if not there:
        raise ModelError(f"policy.pretrain={uri!r}: no model lies there; give the prefix that holds its config.json")
    folder.mkdir(parents=True, exist_ok=True)
    for entry in there:
        path = folder / entry.key
        if not path.is_file() or path.stat().st_size != entry.size:
            store.download(entry.key, path)
    return folder


def _from_hub(name: str) -> Path:
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"policy.pretrain={name!r}: no folder of that name, and the hub has none either ({reason})"
        ) from error
