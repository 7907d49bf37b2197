"""Settings of the epistemic reward model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from ..settings import Section, operational_field


class RewardModelSettings(Section):
    """The ensemble that learns what the oracle prefers, and the encoder whose features it reads."""

    learn_rm: bool = False
    """Learn a reward model also where exp_method does without one: for best-of-n, and to see how good it is."""
    rm_backbone: str = ""
    """Frozen encoder of the reward model: a model folder, a hub name or s3://bucket/folder, on the ledger's server
    (llm-blender/PairRM-hf as Oat, any transformers encoder or causal language model); by default the policy's starting
    model."""
    rm_max_length: int = Field(2048, ge=8)
    """Longest prompt plus answer in tokens that the encoder reads; what is longer loses the prompt's beginning."""
    rm_encode_batch_size: int = operational_field(16, ge=1)
    """Texts in one pass of the encoder; they are sorted by length."""
    num_ensemble: int = Field(20, ge=1)
    """Members of the ensemble."""
    rm_hidden_dim: int = Field(128, ge=1)
    """Units in each of a member's two hidden layers."""
    rm_act_fn: Literal["relu", "swish"] = "relu"
    """Activation function of the hidden layers."""
    enn_lambda: float = Field(0.5, ge=0)
    """Strength of the pull of each member to its own initial weights; it fades as rm_batch_size / queries."""
    rm_fixed_reg: bool = False
    """Let that pull stay as strong as at first."""
    rm_lr: float = Field(1e-3, gt=0)
    """Learning rate of the members (Adam)."""
    rm_wd: float = Field(5e-5, ge=0)
    """Weight decay of the members, added to the gradient as Adam's L2 term."""
    rm_sgd_steps: int = Field(5, ge=1)
    """Optimisation steps in each round."""
    rm_batch_size: int = Field(128, ge=1)
    """Duels in one such step, drawn from the replay buffer without replacement; as many as there are, if fewer."""
    rm_full_batches: bool = False
    """Learn nothing until the buffer holds a full batch, as Oat."""
    rm_mask: Literal["row", "broadcast"] = "row"
    """How a duel that must not be learned from is left out: its own row, or, as Oat's code does it, the mean loss times
    the share of the others, so that it is learned from after all."""
    r_buffer_maxlen: int = Field(50_000, ge=1)
    """Newest duels that the replay buffer holds, over all rounds."""
    rm_train_budget: int | None = Field(None, ge=1)
    """Queries after which the reward model is left as it is; by default never."""

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        problems = list(self._find_problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _find_problems(self) -> Iterator[str]:
        if self.rm_fixed_reg and not self.enn_lambda:
            yield "reward_model.rm_fixed_reg=True: enn_lambda=0 pulls at nothing; leave it out"
