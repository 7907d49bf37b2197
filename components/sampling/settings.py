"""Settings of the sampling room."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ..settings import Section, operational_field


class SamplingSettings(Section):
    """How the policy draws candidates."""

    engine: Literal["vllm", "scripted"] = "vllm"
    """What generates: vLLM, or a scripted stand-in that needs no model (for trying a pipeline's plumbing)."""
    num_samples: int = 2
    """Candidates for each prompt; a duel needs at least 2."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling: keep the most likely tokens that make up this probability."""
    generate_max_length: int = Field(512, ge=1)
    """Longest answer in tokens; offline, where answers of the preference set are cut off."""
    max_model_len: int | None = Field(None, ge=1)
    """Longest prompt plus answer that the engine makes room for; by default what the model allows."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the engine; auto takes bfloat16 where the machine computes in it, and float32 otherwise."""
    tensor_parallel_size: int = operational_field(1, ge=1)
    """GPUs that share one model."""
    gpu_memory_utilization: float = operational_field(0.9, gt=0, le=1)
    """Share of a GPU's memory that the engine may take."""
    cpu_kv_cache_gib: float = operational_field(1.0, gt=0)
    """Memory for the engine's key-value cache on a machine without a GPU, in GiB."""
    enforce_eager: bool = operational_field(False)
    """Skip graph capture: faster start, slower generation on a GPU."""

    @field_validator("num_samples")
    @classmethod
    def _enough_for_a_duel(cls, value: int) -> int:
        if value < 2:
            raise ValueError("a duel needs at least 2 candidates")
        return value
