"""Where the model that an experiment begins with is, on this machine."""

from __future__ import annotations

from pathlib import Path

from ..model_folder import resolve_pretrain
from ..store.setting_stores import SettingStores
from .settings import PolicySettings


def find_starting_model(settings: PolicySettings, stores: SettingStores | None = None) -> Path:
    """Return the starting model's folder on this machine. Raises `ModelError` if it is not there or not allowed."""
    return resolve_pretrain(
        settings.pretrain,
        trust_remote_code=settings.trust_remote_code,
        allow_pickled_weights=settings.allow_pickled_weights,
        stores=stores,
    )
