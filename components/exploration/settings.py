"""Settings of exploration."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..settings import Section, did_you_mean, is_given
from .registry import STRATEGIES, Strategy


class ExplorationSettings(Section):
    """Which two candidates duel, and what the labels are to be good for."""

    objective: Literal["best_arm", "explore_and_exploit"] = "best_arm"
    """What the labels are for: a good final policy (measured by held-out win rate and simple regret), or good answers
    in every duel too (measured also by the win rate of both members of each duel, and by cumulative regret)."""
    exp_method: str = "passive"
    """Which candidates duel: passive (the first two), EnnEETS (the best answers of two sampled members), EnnBAITS (the
    best answer of a sampled member, against the answer whose chance of beating it the members disagree on most: SEA's
    default), EnnUncertainty (the pair whose winner the members disagree on most), EnnPassive
    (the first two, with a reward model for best-of-n), DRTS (sampled best against sampled worst), DeltaUCB (the
    largest optimistic difference), APL (the largest implicit margin), XPO (policy against reference)."""
    on_clash: Literal["redraw", "keep", "second_best", "random", "skip"] = "redraw"
    """What to do with a duel of equal texts: redraw: take the best answer of further members (kept if all agree);
    keep: leave it, without a query or a lesson; second_best: the second best answer; random: any other answer; skip:
    no duel."""
    exp_law: Literal["paper", "oat"] = "paper"
    """Where Oat's code differs from the paper: one member for each prompt and the variance of probabilities, or one for
    all prompts of a round and the variance of reward differences."""
    enn_max_try: int | None = Field(None, ge=1)
    """Members that EnnEETS samples to find a different best answer, the first one included; by default all."""
    ucb_beta: float = Field(1.0, ge=0)
    """Width of DeltaUCB's intervals, in standard deviations of the members."""
    apl_certainty_only: bool = False
    """APL: rank prompts by their margin alone, without the filter by entropy; needs num_samples 2."""
    apl_keep: int | None = Field(None, ge=1)
    """APL: how many prompts of a round get a duel; the others cost no query. By default half of them."""
    model_rollout: bool = False
    """Mixed preference learning: let the reward model label some pairs in place of the oracle."""
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
    def _check_method(cls, value: Any) -> str:
        names = {name.lower(): name for name in STRATEGIES} | {"no": "passive"}
        found = names.get(str(value).lower())
        if found is None:
            raise ValueError(f"unknown; {did_you_mean(str(value), list(STRATEGIES))}")
        return found

    @model_validator(mode="after")
    def _refuse_problems(self) -> Self:
        problems = list(self._find_problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def strategy(self) -> Strategy:
        """How duels are picked."""
        return STRATEGIES[self.exp_method]

    @property
    def uses_ensemble(self) -> bool:
        """Whether the epistemic reward model picks duels, or labels some."""
        return self.strategy.needs == "ensemble" or self.model_rollout

    def find_unread(self) -> dict[str, list[str]]:
        """Return the settings ("section.name") that only other strategies read, each with the names of those."""
        unread: dict[str, list[str]] = {}
        for name, strategy in STRATEGIES.items():
            for setting in strategy.reads:
                if setting not in self.strategy.reads:
                    unread.setdefault(setting, []).append(name)
        return unread

    def count_duels(self, prompts: int) -> int:
        """Return how many duels a round of so many prompts has at most."""
        return min(prompts, self.apl_keep or max(1, prompts // 2)) if self.strategy.keeps_some_prompts else prompts

    def count_rounds(self, queries: int, prompts: int, done: int = 0) -> int:
        """Return how many rounds of so many prompts a budget of queries pays for, if no duel is a clash.

        A pair that a member labels costs nothing, so synthetic pairs pay for more rounds. If every pair is synthetic
        after the burn-in, the number is that of an experiment without them.

        Args:
            queries: The budget, or what is left of it.
            prompts: Prompts in a round.
            done: Rounds before these.
        """
        before, after = self.count_duels(prompts), self._count_later_queries(prompts)
        burn_in = max(0, self.burn_in_period - done)
        burnt_in = queries - burn_in * before
        if not self.model_rollout or self.pure_model_based or after <= 0 or burnt_in <= 0:
            return ceil(queries / before)
        return burn_in + ceil(burnt_in / after)

    def asks_only_at_first(self, prompts: int) -> bool:
        """Whether the oracle labels pairs during the burn-in alone, and members of the ensemble all pairs after it."""
        by_members = self.model_rollout and self.model_data_label == "member"
        return by_members and (self.pure_model_based or self._count_later_queries(prompts) <= 0)

    def _count_later_queries(self, prompts: int) -> int:
        """Return how many queries a round costs after the burn-in, if no duel is a clash."""
        free = int(prompts * self.max_model_data_ratio) if self.model_data_label == "member" else 0
        return self.count_duels(prompts) - free

    def _find_problems(self) -> Iterator[str]:
        """Name each setting that was given and that the other settings make meaningless."""
        for name in ("max_model_data_ratio", "burn_in_period", "pure_model_based", "model_data_label"):
            if is_given(self, name) and not self.model_rollout:
                yield f"exploration.{name}={getattr(self, name)!r}: no synthetic pairs are made; set model_rollout"
        if self.exp_law == "oat" and not self.strategy.has_oat_variant:
            yield f"exploration.exp_law='oat': exp_method={self.exp_method!r} is the same in Oat's code; leave it out"
