"""Settings of the exploration room."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..settings import Section, did_you_mean

ENSEMBLE_METHODS = ("EnnPassive", "EnnEETS", "EnnBAITS", "EnnUncertainty", "DRTS", "DeltaUCB")
"""Strategies that need the epistemic reward model."""
NEEDS_TWO_MEMBERS = ("EnnBAITS", "EnnUncertainty")
"""Strategies that go by the disagreement of the members."""
METHODS = ("passive", *ENSEMBLE_METHODS, "APL", "XPO")


class ExplorationSettings(Section):
    """Which two candidates duel, and what the labels are to be good for."""

    objective: Literal["best_arm", "explore_and_exploit"] = "best_arm"
    """What the labels are for: a good final policy (measured by held-out win rate and simple regret), or good answers
    in every duel too (measured also by the win rate of both members of each duel, and by cumulative regret)."""
    exp_method: str = "passive"
    """Which candidates duel: passive (the first two), EnnEETS (two sampled champions), EnnBAITS (a sampled champion
    against the answer least sure to lose: SEA's default), EnnUncertainty (the pair least sure of all), EnnPassive
    (the first two, with a reward model for best-of-n), DRTS (sampled best against sampled worst), DeltaUCB (the
    largest optimistic difference), APL (the largest implicit margin), XPO (policy against reference)."""
    on_clash: Literal["redraw", "keep", "second_best", "random", "skip"] = "redraw"
    """What becomes of a duel of equal texts: ask further members for another champion (where all agree, it stays);
    keep it (nobody is asked, nothing is learned); the second best answer; any other answer; or no duel at all."""
    exp_law: Literal["paper", "oat"] = "paper"
    """Where Oat's code differs from the paper: one member for each prompt and the variance of probabilities, or one for
    all prompts of a round and the variance of reward differences."""
    enn_max_try: int | None = Field(None, ge=1)
    """Members that EnnEETS asks for a second champion, the first one included; by default all."""
    ucb_beta: float = Field(1.0, ge=0)
    """Width of DeltaUCB's intervals, in standard deviations of the members."""
    apl_certainty_only: bool = False
    """APL: rank prompts by their margin alone, without the filter by entropy; needs num_samples 2."""
    apl_keep: int | None = Field(None, ge=1)
    """APL: prompts of a round that get a duel, the others cost no query; by default half of them."""
    model_rollout: bool = False
    """Mixed preference learning: let the reward model label some pairs, which the oracle is never asked about."""
    max_model_data_ratio: float = Field(0.3, ge=0, le=1)
    """Share of a round's prompts that get such a synthetic pair."""
    burn_in_period: int = Field(5, ge=0)
    """Rounds before the first synthetic pair."""
    pure_model_based: bool = False
    """Learn from synthetic pairs alone after the burn-in; the other pairs are dropped and cost nothing."""
    model_data_label: Literal["member", "oracle"] = "member"
    """Who labels a synthetic pair: the member that proposed it, or, as Oat's code, the oracle; its queries count."""

    @field_validator("exp_method", mode="before")
    @classmethod
    def _known(cls, value: Any) -> str:
        names = {name.lower(): name for name in METHODS} | {"no": "passive"}
        found = names.get(str(value).lower())
        if found is None:
            raise ValueError(f"unknown; {did_you_mean(str(value), list(METHODS))}")
        return found

    @model_validator(mode="after")
    def _agree(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def uses_ensemble(self) -> bool:
        """Whether duels are picked by the epistemic reward model, or it labels some."""
        return self.exp_method in ENSEMBLE_METHODS or self.model_rollout

    def kept_by_apl(self, prompts: int) -> int:
        """Return how many of a round's prompts get a duel in APL."""
        return min(prompts, self.apl_keep or max(1, prompts // 2))

    def duels(self, prompts: int) -> int:
        """Return how many duels a round of so many prompts has at most."""
        return self.kept_by_apl(prompts) if self.exp_method == "APL" else prompts

    def rounds(self, queries: int, prompts: int) -> int:
        """Return how many rounds of so many prompts spend a budget of queries, clashes aside.

        Pairs that a member labels cost none, so that more rounds are paid for; where nothing else is left after the
        burn-in, as many as without them.
        """
        before = self.duels(prompts)
        after = before - (int(prompts * self.max_model_data_ratio) if self.model_data_label == "member" else 0)
        burnt_in = queries - self.burn_in_period * before
        if not self.model_rollout or self.pure_model_based or after <= 0 or burnt_in <= 0:
            return ceil(queries / before)
        return self.burn_in_period + ceil(burnt_in / after)

    def _problems(self) -> Iterator[str]:
        """Name each setting that was given and that nothing heeds."""
        heeded = {"enn_max_try": "EnnEETS", "ucb_beta": "DeltaUCB", "apl_certainty_only": "APL", "apl_keep": "APL"}
        for name, method in heeded.items():
            if self._is_given(name) and self.exp_method != method:
                yield self._letter(name, f"exp_method={self.exp_method!r} ignores it; leave it out, or use {method}")
        for name in ("max_model_data_ratio", "burn_in_period", "pure_model_based", "model_data_label"):
            if self._is_given(name) and not self.model_rollout:
                yield self._letter(name, "no synthetic pairs are made; set model_rollout")
        if self.exp_law == "oat" and self.exp_method not in ENSEMBLE_METHODS[:4]:
            yield self._letter("exp_law", f"exp_method={self.exp_method!r} has one law only; leave it out")

    def _is_given(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    def _letter(self, name: str, why: str) -> str:
        return f"exploration.{name}={getattr(self, name)!r}: {why}"
