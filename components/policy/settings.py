"""Settings of the policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..settings import Section, did_you_mean, operational_field
from .registry import LOSSES, Loss


class PolicySettings(Section):
    """What is trained, and how."""

    trainer: Literal["deepspeed", "scripted"] = "deepspeed"
    """What trains: DeepSpeed, or a scripted stand-in that needs no model (for trying a pipeline's plumbing)."""
    pretrain: str = ""
    """Starting model: a folder in Hugging Face layout, a hub name, or s3://bucket/folder (on the ledger's server, \
unless it ends in ?endpoint=URL). It is also the reference \
of the loss."""
    trust_remote_code: bool = False
    """Run the code that the starting model brings along (auto_map). Off: such a model is refused."""
    allow_pickled_weights: bool = False
    """Load weights that are pickles (*.bin), which can run code. Off: a model without safetensors is refused."""
    learn_rm_only: bool = False
    """Leave the policy as it is and learn the reward model alone, which best-of-n then picks by (EE4LLM)."""
    dap_algo: str = "dpo"
    """Direct preference loss: dpo, ipo, slic, simpo, lr_dpo (DPO on per-token means) or bnf."""
    beta: float = Field(0.1, gt=0)
    """Strength of the pull towards the reference; every loss but bnf has it, each on a scale of its own."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Probability that a label is wrong, for dpo (then cDPO), lr_dpo and simpo."""
    len_reg_alpha: float = Field(0.0, ge=0)
    """Length regularisation (R-DPO): margin for each token by which the chosen answer is longer; dpo, lr_dpo."""
    dpo_positive_lambda: float = Field(0.0, ge=0)
    """Penalty on a chosen answer that becomes less likely than under the reference (DPO-Positive); dpo, lr_dpo."""
    sft_weight: float = Field(0.0, ge=0)
    """Weight of the chosen answer's negative log-likelihood per token, added to the loss; dpo, lr_dpo."""
    xpo_alpha: float = Field(5e-6, ge=0)
    """Optimism of exp_method XPO: weight of the log-probability of the reference's answer, added to the loss of dpo."""
    gamma_beta_ratio: float = Field(0.5, ge=0)
    """Margin that simpo demands, as a multiple of beta."""
    ipo_per_token: bool = False
    """Let ipo compare per-token means of log-ratios, as Oat computes it, instead of sums, as its paper says."""
    bnf_length: Literal["pair", "batch"] = "pair"
    """What bnf divides by: the shorter answer of the pair, or, as Oat, the shortest of the whole forward pass, of
    train_batch_size_per_device pairs."""
    loss_reduction: Literal["kept", "all"] = "kept"
    """Mean of the loss over the pairs that are learned from, or, as Oat, over clashes too, whose loss is zero."""
    eos_overwrite: bool = False
    """Let an answer that was cut off end in an invented end-of-sequence token, as Oat. Off: it has no end to learn."""
    learning_rate: float = Field(5e-7, gt=0)
    """Highest learning rate."""
    lr_scheduler: Literal["cosine_with_min_lr", "polynomial", "constant"] = "cosine_with_min_lr"
    """Course of the learning rate after its warm-up: a cosine down to min_lr_ratio, a line down to almost nothing, \
or none."""
    lr_warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of all optimisation steps in which the learning rate rises linearly from zero."""
    min_lr_ratio: float = Field(0.1, ge=0, le=1)
    """Where the cosine schedule ends, as a share of learning_rate."""
    max_step_adjustment: float = Field(1.0, gt=0)
    """Length of the learning rate's course, as a multiple of the optimisation steps that the budget pays for."""
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
    leftover_pairs: Literal["spread", "own_step"] = "spread"
    """Pairs that do not fill an optimisation step: spread over the steps of the pass, which then have about
    train_batch_size pairs, or a smaller step of their own, as in experiments of earlier versions."""
    train_batch_size_per_device: int = operational_field(1, ge=1)
    """Pairs in one forward pass of one worker."""
    max_epochs: int = Field(1, ge=1)
    """Passes over a round's pairs."""
    max_sgd_steps: int | None = Field(None, ge=1)
    """Most optimisation steps in one round; by default as many as its pairs make."""
    sync_params_every: int = Field(1, ge=1)
    """Rounds after which the policy that answers prompts is refreshed: 1 is online, more is iterative, and more than
    there are rounds is offline: the starting model answers all the time."""
    pi_buffer_maxlen: int | None = Field(None, ge=1)
    """Newest preferences that a round learns from; by default those of the round itself (rollout_batch_size)."""
    buffer_clear_every: int | None = Field(None, ge=1)
    """Rounds after which older preferences are forgotten; by default never, and pi_buffer_maxlen alone counts."""
    lora_rank: int = Field(0, ge=0)
    """Train a low-rank adapter of this rank (LoRA) instead of all weights; 0 trains all."""
    lora_alpha: int = Field(16, ge=1)
    """Scale of the adapter: what it adds is multiplied by lora_alpha / lora_rank."""
    lora_targets: str = "all-linear"
    """Layers that get an adapter: all-linear, or the last parts of their names with commas between (q_proj,v_proj)."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Number format of forward and backward passes; auto: bfloat16 where the machine computes faster in it."""
    zero_stage: Literal[0, 1, 2, 3] = operational_field(2)
    """DeepSpeed ZeRO stage: what is split among the workers."""
    adam_offload: bool = operational_field(False)
    """Keep the optimizer's state in main memory instead of the GPU's; needs zero_stage 1, 2 or 3."""
    gradient_checkpointing: bool = operational_field(False)
    """Compute activations anew in the backward pass: less memory, about a third more time."""
    train_workers: int = operational_field(1, ge=1)
    """Processes that train together."""
    train_timeout_seconds: float = operational_field(86_400.0, gt=0)
    """How long a training job may take before the round is given up."""

    @field_validator("dap_algo", mode="before")
    @classmethod
    def _check_loss(cls, value: Any) -> str:
        name = str(value).lower().replace("-", "_")
        if name not in LOSSES:
            raise ValueError(f"unknown; {did_you_mean(name, list(LOSSES))}")
        return name

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        problems = [*self._find_ignored(), *self._find_contradictions()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def loss(self) -> Loss:
        """The loss that is minimised."""
        return LOSSES[self.dap_algo]

    def _find_ignored(self) -> Iterator[str]:
        """Name each setting of a loss that was given, and that the chosen loss does not read."""
        for name in sorted(frozenset().union(*(loss.reads for loss in LOSSES.values())) - self.loss.reads):
            if self._is_given(name):
                others = ", ".join(sorted(algo for algo, loss in LOSSES.items() if name in loss.reads))
                why = f"dap_algo={self.dap_algo!r} ignores it; leave it out, or use a loss that reads it ({others})"
                yield self._name_value(name, why)

    def _find_contradictions(self) -> Iterator[str]:
        if self.adam_offload and not self.zero_stage:
            yield "policy.adam_offload=True: zero_stage=0 keeps everything where the model is; use zero_stage 1, 2 or 3"
        for name in ("lora_alpha", "lora_targets"):
            if not self.lora_rank and self._is_given(name):
                yield self._name_value(name, "no adapter is trained; set lora_rank, 8 for example")
        if not all(part.strip() for part in self.lora_targets.split(",")):
            yield self._name_value("lora_targets", "a name is empty; write q_proj,v_proj")
        if self.buffer_clear_every and not self.pi_buffer_maxlen:
            yield self._name_value("buffer_clear_every", "no older preferences are kept; set pi_buffer_maxlen too")
        if self.lr_scheduler != "cosine_with_min_lr" and self._is_given("min_lr_ratio"):
            yield self._name_value(
                "min_lr_ratio", f"lr_scheduler={self.lr_scheduler!r} has no such floor; leave it out"
            )
        if self.lr_scheduler == "constant" and self.lr_warmup_ratio and self._is_given("lr_warmup_ratio"):
            yield self._name_value("lr_warmup_ratio", "lr_scheduler='constant' has no warm-up; leave it out")

    def _is_given(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    def _name_value(self, name: str, why: str) -> str:
        return f"policy.{name}={getattr(self, name)!r}: {why}"
