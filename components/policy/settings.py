"""Settings of the policy room."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..settings import Section, operational


class PolicySettings(Section):
    """What is trained, and how."""

    trainer: Literal["deepspeed", "scripted"] = "deepspeed"
    """What trains: DeepSpeed, or a scripted stand-in that needs no model (for trying a pipeline's plumbing)."""
    pretrain: str = ""
    """Starting model: a folder in Hugging Face layout, a hub name, or s3://bucket/folder. It is also the reference \
of the loss."""
    dap_algo: Literal["dpo"] = "dpo"
    """Direct preference loss."""
    beta: float = Field(0.1, gt=0)
    """Strength of the pull towards the reference."""
    learning_rate: float = Field(5e-7, gt=0)
    """Highest learning rate."""
    lr_warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of all optimisation steps in which the learning rate rises linearly from zero."""
    min_lr_ratio: float = Field(0.1, ge=0, le=1)
    """Where the cosine schedule ends, as a share of learning_rate."""
    l2: float = Field(0.0, ge=0)
    """AdamW weight decay (never on biases and norms)."""
    adam_beta_1: float = Field(0.9, ge=0, lt=1)
    """AdamW: decay of the gradient's running mean."""
    adam_beta_2: float = Field(0.95, ge=0, lt=1)
    """AdamW: decay of the squared gradient's running mean."""
    max_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    train_batch_size: int = Field(128, ge=1)
    """Pairs in one optimisation step."""
    train_batch_size_per_device: int = operational(1, ge=1)
    """Pairs in one forward pass of one worker."""
    max_epochs: int = Field(1, ge=1)
    """Passes over a round's pairs."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Number format of forward and backward passes; auto: bfloat16 where the machine computes faster in it."""
    zero_stage: Literal[0, 1, 2, 3] = operational(2)
    """DeepSpeed ZeRO stage: what is split among the workers."""
    train_workers: int = operational(1, ge=1)
    """Processes that train together."""
    train_timeout_seconds: float = operational(86_400.0, gt=0)
    """How long one round's training may take before it is given up."""
