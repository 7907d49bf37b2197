"""Opens the tools of a round whose experiment is on a ledger: engines, policies, the encoder, the oracle."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import progress
from ..ledger import layout
from ..ledger.step import Step
from ..model_folder import resolve_pretrain
from ..oracles.oracle import Circumstances, Oracle
from ..oracles.registry import ORACLES, open_oracle
from ..policy.starting_model import find_starting_model
from ..prompts.template import Tokenizer, load_tokenizer
from ..records.plan import STARTING_MODEL, PolicyPointer
from ..records.records import Duel
from ..sampling.engine import Engine, Policy, open_engine
from ..seeds import derive
from .annotation_files import collect_answers
from .experiment import ExperimentSettings
from .inputs import Tools
from .train_step import train_without_job

if TYPE_CHECKING:
    from ..reward_model.encoder import Encoder


@dataclass(frozen=True)
class LedgerTools:
    """Opens what one step of a round needs. `step` holds the round's claim."""

    step: Step
    settings: ExperimentSettings

    def as_tools(self) -> Tools:
        """Return the tools."""
        return Tools(
            load_tokenizer=lambda: self.tokenizer,
            open_policy=self.open_policy,
            open_engine=self.open_engine,
            open_encoder=self.open_encoder,
            open_oracle=self.open_oracle,
            train_policy=train_without_job,
            find_trained_policy=lambda: self.step.ledger.policy_after(self.step.round),
        )

    @cached_property
    def starting_folder(self) -> Path:
        """The folder of the starting model on this machine."""
        return find_starting_model(self.settings.policy, self.step.ledger.setting_stores)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all policies, which is the starting model's; a scripted policy counts words."""
        folder = None if self.settings.sampling.engine == "scripted" else self.starting_folder
        tokenizer: Tokenizer = load_tokenizer(folder, self.settings.policy.trust_remote_code)
        return tokenizer

    @contextmanager
    def open_policy(self, pointer: PolicyPointer) -> Iterator[Policy]:
        """Give a policy whose folder is fetched when it is asked for, and removed at the end."""
        with tempfile.TemporaryDirectory(prefix="oatflow-policy-") as scratch:

            def fetch_folder() -> Path:
                if pointer.round == STARTING_MODEL:
                    return self.starting_folder
                self.step.download_folder("policy", "model", Path(scratch), round_=pointer.round)
                return Path(scratch)

            yield Policy(pointer.digest, fetch_folder)

    @contextmanager
    def open_engine(self, policy: Policy) -> Iterator[Engine]:
        """Give an engine with a policy loaded; its weights are fetched only if the engine does not hold them yet."""
        trusted = self.settings.policy.trust_remote_code
        engine = open_engine(self.settings.sampling, policy.fetch_folder, policy.digest, trusted)
        with closing(engine):
            yield engine

    def open_encoder(self) -> Encoder:
        """Open the reward model's encoder; a scripted policy has a scripted one unless the settings name another."""
        from ..reward_model.encoder import open_encoder

        chosen, policy = self.settings.reward_model, self.settings.policy
        allowed = {
            "trust_remote_code": policy.trust_remote_code,
            "allow_pickled_weights": policy.allow_pickled_weights,
        }
        if chosen.rm_backbone:
            stores = self.step.ledger.setting_stores
            folder = resolve_pretrain(chosen.rm_backbone, "reward_model.rm_backbone", **allowed, stores=stores)
        elif policy.trainer == "scripted":
            return open_encoder(None, chosen)
        else:
            folder = self.starting_folder
        return open_encoder(folder, chosen, **allowed, chat_template=self.settings.prompts.apply_chat_template)

    def open_oracle(self, duels: Sequence[Duel], name: str) -> tuple[Oracle, Mapping[str, Any]]:
        """Open the oracle that answers these duels.

        Returns:
            The oracle, and how far people agree where people are asked.

        Raises:
            WaitingForLabels: People are asked, and have not answered yet.
        """
        name = name or self.settings.labeling.preference_oracle
        if not ORACLES[name].answers_at_once:
            from ..people.agreement import agreement_facts
            from ..people.human_oracle import HumanOracle

            answers = collect_answers(self.step, duels, self.settings.human)
            seed = derive(self.settings.ledger.seed, self.step.round, "agreement")
            return HumanOracle(self.settings.human, answers), agreement_facts(answers, seed)
        where = Circumstances(self.settings.ledger.seed, self._report_wait, self.step.ledger.setting_stores)
        return open_oracle(name, self.settings.find_oracle_section(name), where), {}

    def _report_wait(self, why: str) -> None:
        progress.report_event(layout.STEPS[self.step.room], self.step.round, "waits", why=why)
