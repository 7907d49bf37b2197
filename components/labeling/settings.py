"""Settings of labeling."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ..oracles.registry import ORACLES
from ..settings import Section, did_you_mean, growing_field, operational_field


class LabelingSettings(Section):
    """Which oracle is asked, how often, and how an answer becomes a label."""

    preference_oracle: str = "simulated"
    """What says which answer wins: simulated (a known reward), pairrm, scorer (a reward model in the step's container),
    remote (a reward service), judge (an LLM), or human."""
    bt_sample: bool = False
    """Draw the label from the probability; off: the more probable answer wins."""
    ties: Literal["undecided", "oat"] = "undecided"
    """What a probability of exactly 0.5 means: undecided: neither is better, and nothing is learned from the duel; oat:
    the second wins, or with bt_sample a coin decides, as in Oat."""
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
    undecided_limit: float = operational_field(0.75, ge=0, le=1)
    """Share of a round's answers that may name no winner. If there are more, and not by chance, the run stops after the
    round with an alarm."""
    accepted_alarms: int = operational_field(-1, ge=-1)
    """Go on after alarms about the labels of rounds up to this number. An alarm stops the run and names the number."""
    oracle_batch_size: int = operational_field(32, ge=1)
    """Duels in one batch; the answers to a batch are durable before the next batch is asked."""

    @field_validator("preference_oracle")
    @classmethod
    def _known_oracle(cls, value: str) -> str:
        if value not in ORACLES:
            raise ValueError(f"unknown; {did_you_mean(value, list(ORACLES))}")
        return value
