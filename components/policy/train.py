"""The training job's program: direct preference learning on one round's preferences.

Run by torchrun on every worker. All workers read the round's inputs from the ledger; worker 0 alone holds the step,
writes the checkpoint straight to the store, and marks the step done. The step that launched the job keeps the round's
claim alive. When it does not any more, or the claim is lost, worker 0 stops, and torchrun stops the others: a job
whose launcher is gone does not hold its GPUs for longer than the lease.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from .. import progress
from ..jobs.orphans import die_with_parent
from ..ledger.ledger import Ledger
from ..ledger.plan import STARTING_MODEL, Plan
from ..ledger.step import Step
from ..model_folder import resolve_pretrain
from ..number_format import number_format
from ..prompts.template import load_tokenizer
from ..seeds import derive
from ..store.transfer import download_folder
from .checkpoint import load_moment, save_optimizer, save_policy, steps_made
from .learner import Learner, init_workers
from .optimising import Optimiser, Scores
from .reading import load_model, read_pairs
from .rows import lay_out
from .schedule import cosine_with_floor, total_steps, warmup_steps
from .scoring import completion_logprobs, one_row_will_do
from .settings import PolicySettings
from .stopwatch import Stopwatch
from .tokens import Pair, optimisation_steps

Curve = list[dict[str, float]]


def main() -> None:
    """Train one round; the arguments come from `training.run_train`."""
    parser = argparse.ArgumentParser()
    # By position: torchrun takes names that begin like its own for itself.
    parser.add_argument("ledger")
    parser.add_argument("round", type=int)
    parser.add_argument("run")
    parser.add_argument("asked", type=float, help="when the step began, seconds since the epoch")
    given = parser.parse_args()
    die_with_parent(os.getppid())
    rank, world = init_workers()
    ledger = Ledger.open(given.ledger)
    step = ledger.step(given.round, "policy", given.run, given.asked, watches=True)
    with step if rank == 0 else nullcontext():
        if not _said_by_worker_0(step.done is not None):
            Training(ledger, ledger.plan(given.round), step, rank, world, given.asked).run()
        dist.barrier()
    # Not after a failure: the other workers may be waiting in the middle of something, and torchrun ends them.
    dist.destroy_process_group()


@dataclass
class Training:
    """One worker's part in one round. `step` is used by worker 0 alone."""

    ledger: Ledger
    plan: Plan
    step: Step
    rank: int
    world: int
    asked: float

    def __post_init__(self) -> None:
        self.settings = self.ledger.section(PolicySettings, "policy")
        self.starting_model = resolve_pretrain(self.settings.pretrain)
        self.tokenizer = load_tokenizer(self.starting_model)
        pad = self.tokenizer.pad_token_id
        self.pad: int = self.tokenizer.eos_token_id if pad is None else pad
        self.precision = number_format(self.settings.precision, gpu=torch.cuda.is_available())
        self.watch = Stopwatch()

    def run(self) -> None:
        """Score the pairs under the reference, learn from them, and leave the policy in the ledger."""
        begun = time.time()
        self.watch.seconds["startup"] = begun - self.asked
        with shared_folder() as folder:
            with self.watch.of("load"):
                model = load_model(self.starting_model)
                longest = getattr(model.config, "max_position_embeddings", None)
                pairs, clashes = read_pairs(self.ledger, self.plan, self.read, self.tokenizer, longest)
                one_row = one_row_will_do(model, pairs, self.pad)
            with self.watch.of("reference"):
                reference = self.score_under_reference(model, pairs, one_row)
            with self.watch.of("load"):
                model = self.go_on_from(model, folder)
                learner = Learner(model, self.settings, self.precision)
                taken = self.load_optimizer(learner, folder)
            optimiser = Optimiser(learner, self.settings, reference, self.pad, one_row, self.watch)
            curve = self.learn(optimiser, pairs, taken)
            self.leave(learner, folder, taken + len(curve))
            if self.rank == 0:
                self.watch.seconds["work"] = time.time() - begun
                counts = self.counts(pairs, clashes, curve, taken)
                self.step.finish(counts, dict(self.watch.seconds), self.facts(curve, one_row))

    def read(self, room: str, name: str) -> bytes:
        """Read an output of this round; worker 0 also notes it as an input of the step."""
        if self.rank == 0:
            return self.step.read(room, name)
        return self.ledger.read(self.plan.round, room, name)

    def score_under_reference(self, model: Any, pairs: Sequence[Pair], one_row: bool) -> Scores:
        """Score every pair once under the reference, which is the starting model; the workers share the pairs."""
        device = torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
        model.to(device)
        scores = torch.zeros(len(pairs), 2, device=device)
        size = self.settings.train_batch_size_per_device
        by_length = sorted(range(len(pairs)), key=lambda index: pairs[index].length)
        chunks = [by_length[start : start + size] for start in range(0, len(pairs), size)]
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            for chunk in chunks[self.rank :: self.world]:
                rows = lay_out([pairs[index] for index in chunk], self.pad, one_row).to(device)
                scores[chunk] = completion_logprobs(model, rows).view(2, -1).T
        dist.all_reduce(scores)
        return {pair: (chosen, rejected) for pair, (chosen, rejected) in zip(pairs, scores.tolist(), strict=True)}

    def go_on_from(self, starting_model: Any, folder: Path) -> Any:
        """Return the policy to go on from: in the first round, that is the starting model itself."""
        if self.plan.policy.round == STARTING_MODEL:
            return starting_model
        self.fetch("model", folder)
        self.fetch("optimizer", folder)
        del starting_model
        return load_model(folder / "model")

    def fetch(self, name: str, folder: Path) -> None:
        """Bring a folder that an earlier round left to this host: its first worker fetches it for all."""
        if self.rank == 0:
            self.step.download_folder("policy", name, folder / name, round=self.plan.policy.round)
        elif local_rank() == 0:
            done = self.ledger.done(self.plan.policy.round, "policy")
            download_folder(self.ledger.store, done.folder(name) if done else (), folder / name)
        dist.barrier()

    def load_optimizer(self, learner: Learner, folder: Path) -> int:
        """Go on from the optimizer's state; returns how many steps it has made."""
        if self.plan.policy.round == STARTING_MODEL:
            return 0
        taken = steps_made(folder / "optimizer")
        learner.load_state(partial(load_moment, folder / "optimizer"), taken)
        return taken

    def learn(self, optimiser: Optimiser, pairs: Sequence[Pair], taken: int) -> Curve:
        """Take the round's optimisation steps; returns what each of them measured."""
        epochs = range(self.settings.max_epochs)
        seeds = [derive(self.ledger.seed, self.plan.round, "train", epoch) for epoch in epochs]
        steps = list(optimisation_steps(pairs, self.settings.train_batch_size, seeds))
        curve: Curve = []
        tokens = 0
        for number, step in enumerate(steps, 1):
            curve.append(optimiser.take(step, self.rate(taken + number)))
            tokens += sum(pair.length for pair in step)
            if self.rank == 0:
                told = {"done": number, "of": len(steps), "tokens": tokens, "loss": curve[-1]["loss"]}
                progress.tell("train", self.plan.round, "work", **told)
        return curve

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1: none is spent at a rate of zero."""
        budget = self.plan.queries_spent + self.plan.queries_left
        rollout = self.ledger.experiment.settings["prompts"]["rollout_batch_size"]
        total = total_steps(budget, rollout, self.settings.max_epochs, self.settings.train_batch_size)
        warmup = warmup_steps(total, self.settings.lr_warmup_ratio)
        return cosine_with_floor(step, total, warmup, self.settings.learning_rate, self.settings.min_lr_ratio)

    def leave(self, learner: Learner, folder: Path, taken: int) -> None:
        """Write policy and optimizer state to the ledger; after the last round nobody goes on from the latter."""
        with self.watch.of("export"):
            weights, state = learner.weights(), {} if self.plan.last else learner.state()
            if self.rank == 0:
                save_policy(learner.model.module, weights, self.starting_model, folder / "new" / "model")
                if state:
                    save_optimizer(state, taken, folder / "new" / "optimizer")
        with self.watch.of("upload"):
            for name in ("model", "optimizer") if self.rank == 0 else ():
                if (folder / "new" / name).is_dir():
                    self.step.upload_folder(name, folder / "new" / name)

    def counts(self, pairs: Sequence[Pair], clashes: int, curve: Curve, taken: int) -> dict[str, int]:
        """Return the round's figures."""
        return {
            "pairs": len(pairs),
            "clashes": clashes,
            "optimizer_steps": taken + len(curve),
            "steps_this_round": len(curve),
            "tokens": sum(pair.length for pair in pairs) * self.settings.max_epochs,
        }

    def facts(self, curve: Curve, one_row: bool) -> dict[str, Any]:
        """Return what the round measured, and how it was computed."""
        return {
            **_means(curve),
            "curve": curve,
            "precision": self.precision,
            "world_size": self.world,
            "zero_stage": self.settings.zero_stage,
            "rows_per_pair": 1 if one_row else 2,
        }


def local_rank() -> int:
    """Return this worker's number on its host."""
    return int(os.environ["LOCAL_RANK"])


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Give a temporary folder that all workers of this host see; the first of them makes it and removes it."""
    path = Path(tempfile.gettempdir()) / f"oatflow-train-{os.environ['TORCHELASTIC_RUN_ID']}"
    if local_rank() == 0:
        if path.exists():
            # A container that is restarted finds what the one before left when it was killed.
            shutil.rmtree(path)
        path.mkdir(mode=0o700)
    dist.barrier()
    try:
        yield path
    finally:
        if local_rank() == 0:
            shutil.rmtree(path)


def _said_by_worker_0(truth: bool) -> bool:
    said = torch.tensor([int(truth)])
    if torch.cuda.is_available():
        said = said.cuda(local_rank())
    dist.broadcast(said, 0)
    return bool(said.item())


def _means(curve: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average what the steps measured; nothing where no step was taken."""
    names = ("loss", "reward_margin", "accuracy")
    return {name: math.fsum(point[name] for point in curve) / len(curve) for name in names} if curve else {}


if __name__ == "__main__":
    main()
