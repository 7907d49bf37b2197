"""What a round's verdicts say beyond the win rate: how sure, at what length, and since when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..records.records import Verdict
from ..seeds import derive
from ..statistics.bootstrap import draw_prompts, estimate_from, score_outcomes
from ..statistics.equal_length import fit_equal_length, refuse_length_control
from ..statistics.exact import sign_test
from ..statistics.intervals import Estimate, estimate_mean, estimate_outcome

SUMMARY = "held_out_answers"
"""The fact of an evaluation that has what its verdicts say."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The held-out answers of a round's policy against the opponent's.

    `equal`: ties in which both answers have the same text. `p_value`: of the exact sign test over the prompts that are
    no tie. `tokens`, `opponent_tokens`: mean length of an answer, and `longer` its difference by prompt.
    `length_controlled`: the win rate at equal length, or None, and then `no_length_control` says why.
    `reward`, `opponent_reward`: means over the prompts whose rewards are known. `outcomes`: 1, 0.5 or 0 by prompt.
    """

    wins: int
    ties: int
    losses: int
    equal: int
    p_value: float | None
    tokens: Estimate
    opponent_tokens: Estimate
    longer: Estimate
    length_controlled: Estimate | None
    no_length_control: str
    reward: Estimate | None
    opponent_reward: Estimate | None
    outcomes: Mapping[str, float]

    def to_facts(self) -> dict[str, Any]:
        """Return all but the outcomes by prompt, which the verdicts have, as a step's facts."""
        return {name: value for name, value in asdict(self).items() if name != "outcomes"}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> HeldOut:
        """Read it back; it has no outcomes."""
        estimates = {name: Estimate(**value) for name, value in facts.items() if isinstance(value, Mapping)}
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in {**facts, **estimates}.items() if name in known}, outcomes={})

    @property
    def prompts(self) -> int:
        """Prompts that were judged."""
        return self.wins + self.ties + self.losses

    @property
    def decided(self) -> int:
        """Prompts that were won or lost: what the sign test is over."""
        return self.wins + self.losses

    @property
    def numbers(self) -> dict[str, float]:
        """What was found, as trackers take metrics."""
        found = {
            "response_tokens": self.tokens.value,
            "opponent_tokens": self.opponent_tokens.value,
            "length_controlled_win_rate": self.length_controlled.value if self.length_controlled else None,
            "length_controlled_low": self.length_controlled.low if self.length_controlled else None,
            "length_controlled_high": self.length_controlled.high if self.length_controlled else None,
            "sign_test_p": self.p_value,
        }
        return {name: value for name, value in found.items() if value is not None}


def sum_up(verdicts: Sequence[Verdict], seed: int) -> HeldOut | None:
    """Sum up a round's verdicts, or return None where there is none. Pure; the same seed gives the same intervals."""
    if not verdicts:
        return None
    verdicts = sorted(verdicts, key=lambda row: row.prompt_id)
    won = score_outcomes([row.policy_wins for row in verdicts])
    own, other = (
        np.array([getattr(row, name) for row in verdicts], dtype=np.float64)
        for name in ("response_tokens", "opponent_tokens")
    )
    wins, losses = int((won == 1).sum()), int((won == 0).sum())
    reason, weights = refuse_length_control(won, own - other), draw_prompts(len(won), derive(seed, "prompts"))
    return HeldOut(
        wins=wins,
        ties=len(won) - wins - losses,
        losses=losses,
        equal=sum(row.response == row.opponent_response for row in verdicts),
        p_value=sign_test(wins, losses),
        tokens=estimate_mean(own),
        opponent_tokens=estimate_mean(other),
        longer=estimate_mean(own - other),
        length_controlled=None if reason else estimate_from(*fit_equal_length(won, own - other, weights)),
        no_length_control=reason,
        reward=_mean_reward([row.reward for row in verdicts]),
        opponent_reward=_mean_reward([row.opponent_reward for row in verdicts]),
        outcomes={row.prompt_id: float(outcome) for row, outcome in zip(verdicts, won, strict=True)},
    )


def change(before: HeldOut, after: HeldOut) -> tuple[Estimate, int] | None:
    """Return by how much the win rate changed, paired by prompt, and over how many prompts that both were judged on."""
    shared = sorted(before.outcomes.keys() & after.outcomes.keys())
    if not shared:
        return None
    differences = [after.outcomes[name] - before.outcomes[name] for name in shared]
    return estimate_outcome(differences, -1.0, 1.0), len(shared)


def _mean_reward(rewards: Sequence[float | None]) -> Estimate | None:
    known = [reward for reward in rewards if reward is not None]
    return estimate_mean(known) if known else None
