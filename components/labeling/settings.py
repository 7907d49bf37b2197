"""Settings of the labeling room."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ..settings import Section, did_you_mean, operational

KNOWN_ORACLES = ("simulated",)


class LabelingSettings(Section):
    """Who is asked, how often, and how an answer becomes a label."""

    preference_oracle: str = "simulated"
    """Who says which answer wins."""
    reward: Literal["vader", "length"] = "vader"
    """Known reward of the simulated oracle: VADER sentiment in [-1, 1], or the number of words over 100."""
    reward_temperature: float = Field(0.1, gt=0)
    """Bradley-Terry temperature of the simulated oracle: P(first wins) = sigmoid((r1 - r2) / temperature)."""
    bt_sample: bool = False
    """Draw the label from the probability; off: the more probable answer wins, and 0.5 goes to the second."""
    max_queries: int = Field(50_000, ge=1)
    """Budget: how many duels the oracle may be asked about in the whole experiment; offline, where none is asked: how
    many preferences of the set are learned from."""
    oracle_batch_size: int = operational(32, ge=1)
    """Duels asked in one go; their answers are durable before the next are asked."""

    @field_validator("preference_oracle")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in KNOWN_ORACLES:
            raise ValueError(f"unknown; {did_you_mean(value, list(KNOWN_ORACLES))}")
        return value
