"""Checks by its small files that a folder holds a reward model, before anything heavy is fetched or loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..model_folder import check_model_folder, resolve_pretrain
from ..store.setting_stores import SettingStores
from .local_model import read_json

_SETTING, _CODE_SETTING = "scorer_model", "scorer_trust_remote_code"
_HEAD = "AutoModelForSequenceClassification"


def check_scorer(model: str, trust_remote_code: bool, stores: SettingStores | None = None) -> None:
    """Raise `ModelError` unless the name is that of a reward model; of a remote one, only the small files are read."""
    _check_folder(model, trust_remote_code, stores, weights=Path(model).is_dir())


def find_scorer(model: str, trust_remote_code: bool, stores: SettingStores | None = None) -> Path:
    """Return the folder of a reward model with its weights, fetched if need be. Raises `ModelError`."""
    return _check_folder(model, trust_remote_code, stores, weights=True)


def _check_folder(model: str, trust_remote_code: bool, stores: SettingStores | None, weights: bool) -> Path:
    folder = resolve_pretrain(model, _SETTING, trust_remote_code=trust_remote_code, weights=weights, stores=stores)
    check_model_folder(folder, _SETTING, _CODE_SETTING, None, trust_remote_code=trust_remote_code, weights=weights)
    problem = _find_head_problem(read_json(folder / "config.json")) or _find_template_problem(folder)
    if problem:
        raise ModelError(f"{_SETTING}={model!r}: {problem}")
    return folder


def _find_head_problem(config: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the model's head; what a head of its own code returns is seen when it scores."""
    architecture = ", ".join(config.get("architectures") or []) or "a model of no named architecture"
    advice = "name a sequence classification model with one output"
    if _HEAD in (config.get("auto_map") or {}):
        return None
    if not architecture.endswith("ForSequenceClassification"):
        return f"{architecture} gives no score; {advice}"
    # transformers takes two where a configuration says nothing.
    outputs = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2)
    return None if outputs == 1 else f"{architecture} has {outputs} outputs, and a score is one; {advice}"


def _find_template_problem(folder: Path) -> str | None:
    if (folder / "chat_template.jinja").is_file() or read_json(folder / "tokenizer_config.json").get("chat_template"):
        return None
    return (
        "its tokenizer has no chat template, so nothing says how it reads a conversation; take a reward model for "
        "chats, or put the template that it was trained with into its folder as chat_template.jinja"
    )
