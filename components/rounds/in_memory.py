"""An experiment in memory: the program of a round with tools that are handed in, and without a ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..model_folder import model_digest
from ..oracles.oracle import Oracle
from ..prompts.template import Tokenizer
from ..records.keep import Memory, StepOutputs, StepReport
from ..records.plan import STARTING_MODEL, Plan, PolicyPointer
from ..records.records import Prompt
from ..reward_model.encoder import Encoder, ScriptedEncoder
from ..sampling.engine import Engine, Policy
from .experiment import ExperimentSettings
from .inputs import Round, Tools
from .round import play_round


@dataclass
class InMemory:
    """Plays rounds one after the other in this process, and keeps what they make in memory.

    Attributes:
        settings: The experiment's settings. Those that choose an engine, an oracle and a model are not read: these
            three are handed in.
        engine: Draws candidates and answers.
        oracle: Gives labels and compares answers.
        starting_model: Folder of the model to train.
        tokenizer: Its tokenizer.
        held_out: Prompts to measure the win rate on; without any, set `evaluation.eval_every` to 0.
        encoder: What the reward model reads texts with, if one is learned.
        memory: What the rounds made and measured.
    """

    settings: ExperimentSettings
    engine: Engine
    oracle: Oracle
    starting_model: Path
    tokenizer: Tokenizer
    held_out: Sequence[Prompt] = ()
    encoder: Encoder = field(default_factory=ScriptedEncoder)
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="oatflow-in-memory-")
        self._policies = [PolicyPointer(STARTING_MODEL, model_digest(self.starting_model))]
        self._prompts: list[Sequence[Prompt]] = []

    def play_next(self, prompts: Sequence[Prompt]) -> Memory:
        """Play the next round on these prompts; returns the memory."""
        self._prompts.append(prompts)
        number = len(self._prompts) - 1
        reports = [self.memory.read_report("labeling", round_) for round_ in range(number)]
        spent = sum(report.counts["queries"] for report in reports if report)
        plan = Plan(
            round=number,
            rounds=self.settings.plan_rounds(number, self.settings.labeling.max_queries - spent),
            prompts=tuple(prompts),
            sampler=self._policies[-1],
            policy=self._policies[-1],
            queries_spent=spent,
            queries_left=self.settings.labeling.max_queries - spent,
            rooms=self.settings.rooms,
            duels=self.settings.exploration.count_duels(len(prompts)),
        )
        given = Round(plan, self.settings, self._policies[0], self._list_prompts, lambda: self.held_out)
        return play_round(given, self._tools, self.memory)

    @property
    def _tools(self) -> Tools:
        return Tools(
            load_tokenizer=lambda: self.tokenizer,
            open_policy=self._open_policy,
            open_engine=self._open_engine,
            open_encoder=lambda: self.encoder,
            open_oracle=lambda duels, name: (self.oracle, {}),
            train_policy=self._train_policy,
            find_trained_policy=lambda: self._policies[-1],
        )

    @contextmanager
    def _open_policy(self, pointer: PolicyPointer) -> Iterator[Policy]:
        yield Policy(pointer.digest, lambda: self._find_folder(pointer.round) / "model")

    @contextmanager
    def _open_engine(self, policy: Policy) -> Iterator[Engine]:
        self.engine.load_policy(policy.fetch_folder, policy.digest)
        yield self.engine

    def _train_policy(self, given: Round, kept: StepOutputs) -> StepReport:
        from ..policy.single_worker import start_single_worker
        from .round_trainer import make_trainer

        rank, world = start_single_worker()
        trainer = make_trainer(
            given,
            finished=kept,
            keep=kept,
            prompts_of=lambda round_: self._prompts[round_],
            starting_model=self.starting_model,
            tokenizer=self.tokenizer,
            rank=rank,
            world=world,
        )
        # The trainer reads the policy before from this folder, and writes the new one below it.
        folder = self._find_folder(given.plan.policy.round)
        counts, facts = trainer.train_round(folder)
        (folder / "new").rename(self._find_folder(given.number))
        digest = model_digest(self._find_folder(given.number) / "model")
        self._policies.append(PolicyPointer(given.number, digest))
        return StepReport(counts, facts, dict(trainer.watch.seconds))

    def _find_folder(self, round_: int) -> Path:
        """Return the folder of what a round left: `model`, `optimizer`, `adapter`; of no round, the starting model."""
        folder = Path(self._scratch.name) / f"round-{round_}"
        if round_ == STARTING_MODEL and not folder.exists():
            folder.mkdir()
            (folder / "model").symlink_to(self.starting_model.resolve(), target_is_directory=True)
        return folder

    def _list_prompts(self) -> list[Prompt]:
        return [prompt for prompts in self._prompts for prompt in prompts]
