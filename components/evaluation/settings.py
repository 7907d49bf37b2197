"""Settings of evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ..oracles.registry import ORACLES
from ..settings import Section, did_you_mean


class EvaluationSettings(Section):
    """How the policy is measured."""

    opponent: Literal["pretrain", "reference"] = "pretrain"
    """Whose answers the policy is compared with: the starting model's, or the data set's output_key column."""
    eval_temperature: float = Field(0.0, ge=0)
    """Sampling temperature of evaluation; 0 is greedy."""
    eval_generate_max_length: int = Field(512, ge=1)
    """Longest answer in tokens."""
    eval_every: int = Field(1, ge=0)
    """Measure the win rate after every so many rounds, and after the last one; 0: never, then nobody is asked."""
    eval_oracle: str = ""
    """Who judges held-out answers; empty: preference_oracle."""
    num_bon: int = Field(1, ge=1)
    """Answers that the policy draws to each held-out prompt; the reward model picks the best of them. 1: its answer."""
    bon_temperature: float = Field(0.7, gt=0)
    """Sampling temperature of those answers, where there are several."""
    bootstrap_samples: int = Field(10_000, ge=100)
    """Not used any more: intervals need no resamples. Experiments and settings files of earlier versions have it."""

    @field_validator("eval_oracle")
    @classmethod
    def _check_oracle(cls, value: str) -> str:
        judges = [name for name, kind in ORACLES.items() if kind.answers_at_once]
        if value in ORACLES and value not in judges:
            raise ValueError(f"people answer between runs, and evaluation needs its verdicts now; {', '.join(judges)}")
        if value and value not in judges:
            raise ValueError(f"unknown; {did_you_mean(value, judges)}")
        return value
