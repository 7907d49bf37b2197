"""Finds out by its small files whether a folder holds a PairRM, and in which of its two layouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..model_folder import check_model_folder, model_digest, resolve_pretrain
from ..records.sealed import digest_of, seal_document
from ..store.setting_stores import SettingStores
from ..store.transfer import sha256_file
from .local_model import read_json

_SETTING = "pairrm_model"
_ADVICE = "take llm-blender/PairRM-hf"
# What PairRM was trained with; its transformers layout does not say.
_LENGTHS = {"source_maxlength": 1224, "candidate_maxlength": 412}


@dataclass(frozen=True)
class PairRMFolder:
    """A folder with the ranker's weights and tokenizer. `ranker`: the settings that llm-blender reads.

    `encoder_config`: file with the encoder's configuration. llm-blender's own layout (PairRM) has it elsewhere, with
    the model that its training began with; the layout for transformers (PairRM-hf) has all in one folder.
    """

    folder: Path
    ranker: dict[str, Any]
    encoder_config: Path

    @property
    def digest(self) -> str:
        """Name the model by its content."""
        files = {"ranker": model_digest(self.folder), "encoder_config": sha256_file(self.encoder_config)}
        return digest_of(seal_document(files))[:12]


def find_pairrm(model: str, weights: bool = True, stores: SettingStores | None = None) -> PairRMFolder:
    """Find a PairRM, fetched if need be; without `weights`, only its small files are.

    Raises `ModelError` where there is none, or one whose weights are pickles.
    """
    folder = resolve_pretrain(model, _SETTING, weights=weights, stores=stores)
    try:
        check_model_folder(folder, _SETTING, None, None, weights=weights or Path(model).is_dir())
    except ModelError as error:
        raise ModelError(f"{error}; or {_ADVICE}, which has its weights as safetensors") from error
    config = read_json(folder / "config.json")
    if config.get("ranker_type") == "pairranker":
        name, said_in = str(config.get("model_name")), f"{_SETTING}={model!r}: model_name"
        home = resolve_pretrain(name, said_in, weights=False, stores=stores)
        return _check_encoder(model, PairRMFolder(folder, config, home / "config.json"))
    if "cand1_prefix_id" not in config:
        what = ", ".join(config.get("architectures") or []) or config.get("ranker_type") or "what lies there"
        raise ModelError(f"{_SETTING}={model!r}: {what} is no PairRM; {_ADVICE}")
    ranker = {"ranker_type": "pairranker", "n_tasks": config.get("n_tasks", 1), **_LENGTHS}
    return _check_encoder(model, PairRMFolder(folder, ranker, folder / "config.json"))


def _check_encoder(model: str, found: PairRMFolder) -> PairRMFolder:
    encoder = read_json(found.encoder_config).get("model_type")
    if encoder != "deberta-v2":
        raise ModelError(f"{_SETTING}={model!r}: its encoder is {encoder}, and PairRM's is deberta-v2; {_ADVICE}")
    absent = [name for name in _LENGTHS if not found.ranker.get(name)]
    if absent:
        raise ModelError(f"{_SETTING}={model!r}: its config.json does not say {' and '.join(absent)}; {_ADVICE}")
    return found
