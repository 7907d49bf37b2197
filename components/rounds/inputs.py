"""What a round is given, and the tools that do its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..oracles.oracle import Oracle
from ..prompts.template import Tokenizer
from ..records.keep import StepOutputs, StepReport
from ..records.plan import Plan, PolicyPointer
from ..records.records import Duel, Prompt
from ..sampling.engine import Engine, Policy
from .experiment import ExperimentSettings

if TYPE_CHECKING:
    from ..reward_model.encoder import Encoder


@dataclass(frozen=True)
class Round:
    """What a round is given, decided before it begins.

    Attributes:
        plan: Its number and prompts, the policies, and what is left of the budget.
        settings: The experiment's settings.
        starting_model: The policy before the first round; it is also the reference of the loss.
        read_prompt_set: Returns all training prompts. Few steps need them.
        read_held_out: Returns the held-out prompts.
    """

    plan: Plan
    settings: ExperimentSettings
    starting_model: PolicyPointer
    read_prompt_set: Callable[[], Sequence[Prompt]]
    read_held_out: Callable[[], Sequence[Prompt]]

    @property
    def number(self) -> int:
        """The round's number, counted from 0."""
        return self.plan.round

    @property
    def seed(self) -> int:
        """The experiment's seed, from which everything random derives."""
        return self.settings.ledger.seed


@dataclass(frozen=True)
class Tools:
    """What does the work. Each field is called only when its tool is needed.

    Attributes:
        load_tokenizer: Returns the tokenizer of the policies.
        open_policy: Opens a policy of the experiment.
        open_engine: Opens an engine with a policy loaded.
        open_encoder: Returns the frozen encoder of the reward model.
        open_oracle: Returns the oracle that answers these duels, and what is known of its answers as a whole. It is
            the one of the name that is given, or the one that gives the labels if the name is empty.
        train_policy: Trains the policy on the round's preferences and keeps it.
        find_trained_policy: Returns the policy that this round's training made.
    """

    load_tokenizer: Callable[[], Tokenizer]
    open_policy: Callable[[PolicyPointer], AbstractContextManager[Policy]]
    open_engine: Callable[[Policy], AbstractContextManager[Engine]]
    open_encoder: Callable[[], Encoder]
    open_oracle: Callable[[Sequence[Duel], str], tuple[Oracle, Mapping[str, Any]]]
    train_policy: Callable[[Round, StepOutputs], StepReport]
    find_trained_policy: Callable[[], PolicyPointer]
