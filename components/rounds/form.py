"""The settings that have a field of their own in the form for a run; all others go into `more_settings`.

A field's name is the setting's own: what the form calls `beta` is `--beta` on the command line and `policy.beta` in a
settings file. KFP cannot hand an absent value through nested pipelines, so a field is never absent: "" stands for
no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from ..errors import SettingsError
from ..settings import Section
from .experiment import ExperimentSettings

MORE = "more_settings"
FORM = (
    "prompt_data", "eval_data", "input_key", "output_key", "chosen_key", "rejected_key", "apply_chat_template",
    "rollout_batch_size", "max_eval",
    "num_samples", "temperature", "generate_max_length", "tensor_parallel_size",
    "exp_method", "objective", "model_rollout", "learn_rm", "rm_backbone",
    "preference_oracle", "reward", "max_queries", "scorer_model", "remote_url", "judge_model", "judge_url",
    "eval_oracle",
    "pretrain", "dap_algo", "beta", "learning_rate", "train_batch_size", "train_batch_size_per_device", "max_epochs",
    "sync_params_every", "lora_rank", "zero_stage", "train_workers",
    "opponent", "eval_generate_max_length", "eval_every",
    "train_backend", "train_image", "train_pods", "train_pod_gpus", "train_pod_cpu", "train_pod_memory", "train_queue",
    "train_node_selector", "train_tolerations", "s3_secret", "keys_secret",
    "gpu_resource", "sampler_gpus", "sampler_cpu", "sampler_memory", "sampler_node_selector", "sampler_tolerations",
    "oracle_gpus", "oracle_cpu", "oracle_memory",
    "light_cpu", "light_memory", "light_cpu_request", "light_memory_request",
    "seed",
)  # fmt: skip


def sections_of(fields: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sort a filled-in form into sections. Raises `SettingsError` for a setting that is given in both places."""
    sections = {room: dict(inside) for room, inside in (fields.get(MORE) or {}).items() if isinstance(inside, Mapping)}
    twice = [f"{room}.{name}" for room, inside in sections.items() for name in inside if name in FORM]
    if twice:
        raise SettingsError(f"{MORE}: {', '.join(twice)}: has a field of its own; set it there")
    for room, name, may_be_nothing in _field_sections():
        if name in fields:
            empty = may_be_nothing and fields[name] == ""
            sections.setdefault(room, {})[name] = None if empty else fields[name]
    return sections


def fields_of(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Fill in the form: a field for each setting in FORM, the others below `more_settings` where they are set."""
    fields: dict[str, Any] = {}
    more: dict[str, dict[str, Any]] = {}
    for room, inside in sections.items():
        for name, value in inside.items():
            if name in FORM:
                fields[name] = "" if value is None else value
            elif value is not None:
                more.setdefault(room, {})[name] = value
    return {**fields, MORE: more}


def _field_sections() -> Iterator[tuple[str, str, bool]]:
    """Yield room and name of each setting in the form, and whether it may have no value."""
    for room, field in ExperimentSettings.model_fields.items():
        section = field.annotation
        assert isinstance(section, type) and issubclass(section, Section)
        for name, inner in section.model_fields.items():
            if name in FORM:
                yield room, name, type(None) in get_args(inner.annotation)
