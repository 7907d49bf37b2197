"""A model as a folder in Hugging Face layout: find it, check it, name it by its content.

Weights are safetensors, and a folder that brings code or pickles of its own is refused, unless the user allows them
by name: `trust_remote_code`, `allow_pickled_weights`.
"""

from __future__ import annotations

import fnmatch
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import ModelError, SettingsError
from .records.sealed import digest_of, seal_document
from .store.setting_stores import SettingStores
from .store.transfer import sha256_file

MODELS = "OATFLOW_MODELS"
_BUILT_IN = "oatflow:"
_PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model")
_WEIGHTS = "*.safetensors"
_CODE = "*.py"
_PICKLES = "pytorch_model*.bin"
_SAFE_INDEX, _PICKLES_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
_CAN_RUN_CODE = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_NAMES_CODE = ("config.json", "tokenizer_config.json")


def resolve_pretrain(
    name: str,
    setting: str = "policy.pretrain",
    /,
    *,
    trust_remote_code: bool = False,
    allow_pickled_weights: bool = False,
    weights: bool = True,
    stores: SettingStores | None = None,
) -> Path:
    """Return the folder that a name stands for.

    It is that folder itself, a model of ours below OATFLOW_MODELS, or a copy of a model on the hub or in a store
    (``s3://bucket/folder``), fetched once for each host. Code and pickles are fetched where allowed;
    without `weights`, only what is small: enough to see what kind of model it is. Errors name the setting. `stores`
    says which server an address means that names none: the ledger's own.
    """
    if not name:
        raise ModelError(f"{setting}='': name the model, a folder or a hub name")
    if name.startswith(_BUILT_IN):
        folder = Path(os.environ.get(MODELS, ".oatflow/models")) / name.removeprefix(_BUILT_IN)
        if not folder.is_dir():
            raise ModelError(f"{setting}={name!r}: not built yet at {folder}; `oatflow align` builds it")
        return folder
    patterns = [*_PATTERNS, *[_CODE] * trust_remote_code]
    patterns += [_WEIGHTS] * weights + [_PICKLES] * (weights and allow_pickled_weights)
    if name.startswith("s3://"):
        return _from_store(name, patterns, setting, stores or SettingStores())
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"{setting}={name!r}: there is no such folder")
    return _from_hub(name, patterns, setting)


def check_model_folder(
    folder: Path,
    setting: str = "policy.pretrain",
    code_setting: str | None = "policy.trust_remote_code",
    pickles_setting: str | None = "policy.allow_pickled_weights",
    /,
    *,
    trust_remote_code: bool = False,
    allow_pickled_weights: bool = False,
    weights: bool = True,
) -> None:
    """Raise `ModelError` unless the folder has a configuration, a tokenizer and all its weights.

    It may bring code, or its weights as pickles, only where that is allowed. The error names the setting, and what
    would allow it, where something does. Without `weights`, a folder that has none is fine.
    """
    problem = (
        _configuration_problem(folder)
        or (_weights_problem(folder, allow_pickled_weights, pickles_setting) if weights else None)
        or _tokenizer_problem(folder)
        or _code_problem(folder, trust_remote_code, code_setting)
    )
    if problem:
        raise ModelError(f"{setting}={str(folder)!r}: {problem}")


def check_lora_targets(folder: Path, targets: str) -> None:
    """Raise `SettingsError` where a layer that shall get an adapter is none of the model's; `all-linear` always fits.

    The layers are known by the names of their weights. Those of pickles cannot be read without running them: such a
    model passes, and the training program finds out.
    """
    if targets == "all-linear":
        return
    layers = _read_layers(folder)
    wanted = [target.strip() for target in targets.split(",")]
    unknown = [target for target in wanted if not any(f".{layer}".endswith(f".{target}") for layer in layers)]
    if layers and unknown:
        there = sorted({layer.rpartition(".")[2] for layer, is_matrix in layers.items() if is_matrix})
        raise SettingsError(
            f"policy.lora_targets={targets!r}: the model has no layer {', '.join(unknown)}; it has {', '.join(there)}"
        )


def short_name(name: str) -> str:
    """Call a model as everybody would: its hub name, or the last part of where it lies."""
    if name.startswith("s3://") or Path(name).is_dir():
        return Path(name.partition("?")[0]).resolve().name
    return name


def model_digest(folder: Path) -> str:
    """Name a model by the SHA-256 of its files' digests: its code and its pickles count where they are used."""
    patterns = [*_PATTERNS, _WEIGHTS]
    if any(_code_named(folder)):
        patterns.append(_CODE)
    if not any(folder.glob(_WEIGHTS)):
        patterns.append(_PICKLES)
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return digest_of(seal_document({path.name: sha256_file(path) for path in files}))


def _configuration_problem(folder: Path) -> str | None:
    if not (folder / "config.json").is_file():
        return "no config.json in it; give a folder in Hugging Face layout"
    return None


def _weights_problem(folder: Path, allow_pickled_weights: bool, setting: str | None) -> str | None:
    kinds = [(_WEIGHTS, _SAFE_INDEX), (_PICKLES, _PICKLES_INDEX)]
    for pattern, index in kinds[: 1 + allow_pickled_weights]:
        if (folder / index).is_file() or any(folder.glob(pattern)):
            missing = _missing_shards(folder / index)
            return f"weights are missing: {', '.join(missing)}; copy the whole folder" if missing else None
    pickled = sorted(path.name for pattern in _CAN_RUN_CODE for path in folder.glob(pattern))
    found = f", only {', '.join(pickled)}, which can run code when loaded" if pickled else ""
    may_allow = setting is not None and not allow_pickled_weights
    allow = f", or allow pickles ({_PICKLES}) with {setting}=true" if may_allow else ""
    return f"no *.safetensors weights in it{found}; save the model with safe_serialization{allow}"


def _missing_shards(index: Path) -> list[str]:
    if not index.is_file():
        return []
    return sorted(
        shard for shard in set(_read_json(index)["weight_map"].values()) if not index.with_name(shard).is_file()
    )


def _tokenizer_problem(folder: Path) -> str | None:
    if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "spm.model")):
        return None
    return "no tokenizer in it (tokenizer.json); save the tokenizer beside the model"


def _code_problem(folder: Path, trust_remote_code: bool, setting: str | None) -> str | None:
    named = list(_code_named(folder))
    if named and not trust_remote_code:
        allow = f", or allow it with {setting}=true" if setting is not None else ""
        return (
            f"it brings code of its own (auto_map in {' and '.join(sorted({file for file, _ in named}))}), which is "
            f"not run; use an architecture that transformers has{allow}"
        )
    elsewhere = sorted(reference for _, reference in named if "--" in reference)
    if elsewhere:
        return (
            f"its code lies in another place ({', '.join(elsewhere)}), which no digest would cover; copy the *.py "
            "files into the folder, and leave out of auto_map all up to the '--'"
        )
    modules = {f"{reference.rpartition('.')[0]}.py" for _, reference in named}
    missing = sorted(module for module in modules if not (folder / module).is_file())
    return f"its code is missing: {', '.join(missing)}; copy the whole folder" if missing else None


def _code_named(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield every class of the folder's own that transformers would run, as ``module.Class``, and who names it."""
    for file in _NAMES_CODE:
        if not (folder / file).is_file():
            continue
        named = _read_json(folder / file).get("auto_map", {})
        for references in named.values() if isinstance(named, dict) else [named]:
            for reference in references if isinstance(references, list) else [references]:
                if reference is not None:
                    yield file, str(reference)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path.parent}: {path.name} cannot be read ({error}); copy the whole folder") from error


def _read_layers(folder: Path) -> dict[str, bool]:
    """Return the layers by name, as the heads of the safetensors files tell, and whether their weight is a matrix."""
    from safetensors import SafetensorError, safe_open

    layers: dict[str, bool] = {}
    for path in sorted(folder.glob(_WEIGHTS)):
        try:
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict
                    layer = name.rpartition(".")[0]
                    layers[layer] = layers.get(layer, False) or len(file.get_slice(name).get_shape()) == 2
        except SafetensorError as error:
            raise ModelError(
                f"policy.pretrain={str(folder)!r}: {path.name} is no whole safetensors file ({error}); copy it again"
            ) from error
    return layers


def _from_store(uri: str, patterns: Sequence[str], setting: str, stores: SettingStores) -> Path:
    """Fetch a model from a store; a copy that is already here, and whole, is taken."""
    place = digest_of(stores.address(uri).encode())[:16]
    folder = _our_own(Path(tempfile.gettempdir()) / f"oatflow-models-{os.getuid()}") / place
    store = stores.open(uri, setting)
    there = [entry for entry in store.list("") if any(fnmatch.fnmatch(entry.key, each) for each in patterns)]
    if not there:
        raise ModelError(
            f"{setting}={uri!r}: no model lies there ({store.uri}); give the prefix that holds its config.json"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for entry in there:
        path = folder / entry.key
        if not path.is_file() or path.stat().st_size != entry.size:
            store.download(entry.key, path)
    return folder


def _our_own(folder: Path) -> Path:
    """Return a folder that no other user of this host has put there: what lies in it may be run."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise ModelError(f"{folder}: it belongs to another user of this host; set TMPDIR to a folder of your own")
    return folder


def _from_hub(name: str, patterns: Sequence[str], setting: str) -> Path:
    from httpx2 import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{setting}={name!r}: no folder of that name, and the hub has none either ({reason}); give a folder, "
            "s3://BUCKET/FOLDER, or the name of a model on the hub, with HF_TOKEN where it is gated"
        ) from error
