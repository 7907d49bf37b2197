"""Settings of the labeling room."""

from __future__ import annotations

from pydantic import Field, field_validator

from ..oracles.settings import KNOWN_ORACLES, SimulatedSettings
from ..settings import did_you_mean, operational


class LabelingSettings(SimulatedSettings):
    """Who is asked, how often, and how an answer becomes a label."""

    preference_oracle: str = "simulated"
    """Who says which answer wins: simulated (a known reward), pairrm, reward_model (in the step's own container),
    remote (a reward service), judge (an LLM), or human."""
    bt_sample: bool = False
    """Draw the label from the probability; off: the more probable answer wins, and 0.5 goes to the second."""
    preference_flip_prob: float = Field(0.0, ge=0, le=1)
    """Noise: the share of labels that are turned round after they were drawn."""
    max_queries: int = Field(50_000, ge=1)
    """Budget: how many duels the oracle may be asked about in the whole experiment; offline, where none is asked: how
    many preferences of the set are learned from."""
    unreadable_limit: float = operational(0.05, ge=0, le=1)
    """Share of a step's answers that may be unreadable; the step stops when there are more."""
    oracle_batch_size: int = operational(32, ge=1)
    """Duels asked in one go; their answers are durable before the next are asked."""

    @field_validator("preference_oracle")
    @classmethod
    def _known_oracle(cls, value: str) -> str:
        if value not in KNOWN_ORACLES:
            raise ValueError(f"unknown; {did_you_mean(value, list(KNOWN_ORACLES))}")
        return value
