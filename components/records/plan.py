"""What a round will do, decided before it begins: a pure function of the experiment and its past."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .records import Prompt

STARTING_MODEL = -1
WITHOUT_REWARD_MODEL = ("sampling", "labeling", "policy", "evaluation")
"""Steps of a round that learns no reward model."""


@dataclass(frozen=True, slots=True)
class PolicyPointer:
    """Which policy: the one that round `round` made, or the starting model (`round` is STARTING_MODEL)."""

    round: int
    digest: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One round: its prompts, who answers them, the policy that learns from it, and what is left of the budget.

    `rounds`: how many the experiment has if every duel from this round on costs a query; what clashes save pays for
    more. `duels`: most that a round has, or None for one a prompt. `outside`: preferences made elsewhere that it learns
    from.
    `sampler` and `policy` are the same where the policy that answers is refreshed after every round. `rooms`: whose
    steps the round has, in the order of the data.
    """

    round: int
    rounds: int
    prompts: tuple[Prompt, ...]
    sampler: PolicyPointer
    policy: PolicyPointer
    queries_spent: int
    queries_left: int
    rooms: tuple[str, ...] = WITHOUT_REWARD_MODEL
    duels: int | None = None
    outside: tuple[Prompt, ...] = ()

    @property
    def learns_rewards(self) -> bool:
        """Whether the round has an epistemic reward model."""
        return "reward_model" in self.rooms

    @property
    def last(self) -> bool:
        """Whether this round may spend what is left of the budget. If clashes save some, another round follows."""
        return self.round == self.rounds - 1

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Plan:
        """Read a plan back."""
        # A plan may be older than preferences from outside.
        prompts, outside = (tuple(Prompt(**row) for row in body.get(name, ())) for name in ("prompts", "outside"))
        pointers = {name: PolicyPointer(**body.get(name, body["policy"])) for name in ("sampler", "policy")}
        # A plan may be older than the list of rooms.
        rooms = tuple(body.get("rooms", WITHOUT_REWARD_MODEL))
        return cls(**(body | {"prompts": prompts, "outside": outside, "rooms": rooms} | pointers))
