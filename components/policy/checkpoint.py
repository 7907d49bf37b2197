"""What a round leaves for the next one: the policy as a model folder, and the optimizer's state as safetensors.

The state is kept by parameter and whole, whatever ZeRO stage and number of workers made it, so the next round may
choose others. Master weights are float32 and are the model folder itself: nothing is kept twice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .settings import PolicySettings

MOMENTS = ("exp_avg", "exp_avg_sq")
# Code comes along where the settings allow a model that brings some.
_COPIED = (".json", ".jinja", ".txt", ".model", ".py")
_WRITTEN_ANEW = ("config.json", "generation_config.json")


def load_model(folder: Path, settings: PolicySettings) -> Any:
    """Load a causal language model in float32, with dropout off; code and pickles only where the settings say so."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        trust_remote_code=settings.trust_remote_code,
        use_safetensors=None if settings.allow_pickled_weights else True,
    ).eval()


def save_policy(model: Any, weights: Mapping[str, Tensor], source: Path, folder: Path) -> None:
    """Write a model folder: float32 weights, and the tokenizer and chat template of `source` unchanged."""
    model.save_pretrained(folder, state_dict=dict(weights))
    for path in source.iterdir():
        written = path.name in _WRITTEN_ANEW or path.name.endswith(".index.json")
        if path.is_file() and path.suffix in _COPIED and not written:
            shutil.copyfile(path, folder / path.name)


def save_optimizer(state: Mapping[str, Mapping[str, Tensor]], count: int, folder: Path) -> None:
    """Write Adam's moments, by moment and parameter name, and how many steps it has made."""
    folder.mkdir(parents=True)
    for moment in MOMENTS:
        save_file({name: tensor.contiguous() for name, tensor in state[moment].items()}, _moment_file(folder, moment))
    (folder / "state.json").write_text(json.dumps({"step": count}) + "\n", encoding="utf-8")


def load_moment(folder: Path, moment: str) -> dict[str, Tensor]:
    """Return one of Adam's moments by parameter name."""
    with safe_open(_moment_file(folder, moment), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict


def read_step_count(folder: Path) -> int:
    """Return how many optimisation steps the optimizer has made."""
    return int(json.loads((folder / "state.json").read_text(encoding="utf-8"))["step"])


def _moment_file(folder: Path, moment: str) -> Path:
    return folder / f"{moment}.safetensors"
