"""A low-rank adapter (LoRA, arXiv:2106.09685) on a frozen model. The only module that imports peft.

The adapter is what a round leaves for the next; the merged model is made from it and the starting model, for those
who sample or serve the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .settings import PolicySettings


def add_adapter(model: Any, settings: PolicySettings, seed: int) -> Any:
    """Freeze a model and give it an adapter that adds nothing yet. The same seed gives the same adapter."""
    from peft import LoraConfig, get_peft_model

    targets: Any = settings.lora_targets
    if targets != "all-linear":
        targets = [target.strip() for target in targets.split(",")]
    config = LoraConfig(
        r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=targets, lora_dropout=0.0,
        bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def load_adapter(model: Any, folder: Path, trainable: bool) -> Any:
    """Freeze a model and give it the adapter that an earlier round left."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder, is_trainable=trainable)


def save_adapter(model: Any, trained: Mapping[str, Tensor], folder: Path) -> None:
    """Write an adapter as peft does: its configuration, and `trained`, its weights by name, as safetensors."""
    # peft would name the model's folder on this host, which is of no use elsewhere.
    model.peft_config["default"].base_model_name_or_path = ""
    model.save_pretrained(folder, state_dict=dict(trained))


def merge_adapter(model: Any, folder: Path) -> Any:
    """Return the ordinary model that a frozen model and an adapter make."""
    return load_adapter(model, folder, trainable=False).merge_and_unload()
