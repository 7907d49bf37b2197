"""Settings of labeling."""

from __future__ import annotations

from pydantic import Field, field_validator

from ..oracles.registry import ORACLES
from ..settings import Section, did_you_mean, growing_field, operational_field


class LabelingSettings(Section):
    """Which oracle is asked, how often, and how an answer becomes a label."""

    preference_oracle: str = "simulated"
    """What says which answer wins: simulated (a known reward), pairrm, scorer (a reward model in the step's container),
    remote (a reward service), judge (an LLM), or human."""
    bt_sample: bool = False
    """Draw the label from the probability; off: the more probable answer wins, and 0.5 goes to the second."""
    preference_flip_prob: float = Field(0.0, ge=0, le=1)
    """Probability of flipping each label (label noise)."""
    max_queries: int = growing_field(50_000, ge=1)
    """Budget: how many duels the whole experiment may ask the oracle about. Offline, where no oracle is asked: how many
    preferences of the set are learned from. It may be raised later: that extends the experiment."""
    unreadable_limit: float = operational_field(0.05, ge=0, le=1)
    """Share of a step's answers that may be unreadable; the step stops when there are more."""
    lost_limit: float = operational_field(0.5, ge=0, le=1)
    """Share of a step's paid answers that may be lost (a process was killed after it had asked); the step stops when
    there are more."""
    oracle_batch_size: int = operational_field(32, ge=1)
    """Duels in one batch; the answers to a batch are durable before the next batch is asked."""

    @field_validator("preference_oracle")
    @classmethod
    def _known_oracle(cls, value: str) -> str:
        if value not in ORACLES:
            raise ValueError(f"unknown; {did_you_mean(value, list(ORACLES))}")
        return value
