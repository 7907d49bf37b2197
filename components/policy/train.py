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
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .. import progress
from ..jobs.orphans import die_with_parent
from ..ledger import layout
from ..ledger.ledger import Ledger
from ..ledger.step import Step
from ..model_folder import resolve_pretrain
from ..number_format import number_format
from ..prompts.template import load_tokenizer
from ..records.plan import STARTING_MODEL, Plan
from ..records.records import ReferenceScore
from ..records.table import from_parquet, to_parquet
from ..seeds import derive
from ..step_ending import explain_failure
from ..store.transfer import download_folder
from .adapter import merged, save_adapter, with_new_adapter, with_saved_adapter
from .buffer import buffer_sizes
from .checkpoint import load_moment, save_optimizer, save_policy, steps_made
from .learner import Learner, init_workers
from .optimising import Optimiser
from .reading import OUTSIDE, Reader, load_model
from .reference import HELD_OUT_REFERENCE, REFERENCE, Scores, by_pair, score_under_reference
from .schedule import SCHEDULES, rows_of_rounds, total_steps, warmup_steps
from .scoring import one_row_will_do
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
    ledger = Ledger.open(given.ledger)
    if claim := ledger.claim(given.round):
        ledger.wait_as_claimed(claim)
    # Worker 0 may wait for the store while the others wait for it.
    rank, world = init_workers(ledger.patience_seconds)
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
        trusts, unpickles = self.settings.trust_remote_code, self.settings.allow_pickled_weights
        self.starting_model = resolve_pretrain(
            self.settings.pretrain,
            trust_remote_code=trusts,
            allow_pickled_weights=unpickles,
            stores=self.ledger.setting_stores,
        )
        self.tokenizer = load_tokenizer(self.starting_model, trust_remote_code=trusts)
        pad = self.tokenizer.pad_token_id
        self.pad: int = self.tokenizer.eos_token_id if pad is None else pad
        self.precision = number_format(self.settings.precision, gpu=torch.cuda.is_available())
        self.watch = Stopwatch()
        self.tokens = 0

    def run(self) -> None:
        """Score the pairs under the reference, learn from them, and leave the policy in the ledger."""
        begun = time.time()
        self.watch.seconds["startup"] = begun - self.asked
        with shared_folder() as folder:
            with self.watch.of("load"):
                # First of all: what is missing there is said before anything is computed.
                self.fetch_checkpoint(folder)
                model = load_model(self.starting_model, self.settings)
                longest = getattr(model.config, "max_position_embeddings", None)
                reader = Reader(self.ledger, self.settings, self.tokenizer, longest, self.read)
                buffer, held_out = reader.buffer(self.plan.round), reader.held_out()
                outside = reader.outside(self.plan.round)
                rows = [*(pair for pairs in buffer.values() for pair in pairs), *outside]
                pairs = [pair for pair in rows if not pair.is_identical]
                one_row = one_row_will_do(model, [*pairs, *held_out], self.pad)
            with self.watch.of("reference"):
                reference = self.reference_scores(model, pairs, held_out, list(buffer), one_row)
            with self.watch.of("load"):
                model = self.go_on_from(model, folder)
                learner = Learner(model, self.settings, self.precision)
                taken = self.load_optimizer(learner, folder)
            optimiser = Optimiser(learner, self.settings, reference, self.pad, one_row, self.watch)
            curve = self.learn(optimiser, rows if self.settings.loss_reduction == "all" else pairs, taken)
            measured = self.measure(optimiser, held_out)
            self.leave(learner, folder, taken + len(curve))
            if self.rank == 0:
                self.watch.seconds["work"] = time.time() - begun
                counts = self.counts(rows, curve, taken) | ({"held_out_pairs": len(held_out)} if held_out else {})
                self.step.mark_done(counts, dict(self.watch.seconds), {**self.facts(curve, one_row), **measured})

    def read(self, room: str, name: str, round_: int) -> bytes:
        """Read an output of a finished step; worker 0 also notes it as an input of this one."""
        if self.rank == 0:
            return self.step.read_output(room, name, round_)
        return self.ledger.read(round_, room, name)

    def reference_scores(
        self, model: Any, pairs: Sequence[Pair], held_out: Sequence[Pair], rounds: Sequence[int], one_row: bool
    ) -> Scores:
        """Return what the reference, which is the starting model, thinks of the pairs: no pair is scored twice."""
        if not self.settings.uses_reference:
            return {}
        earlier = [round_ for round_ in rounds if round_ != self.plan.round]
        known: dict[str, ReferenceScore] = {}
        for round_ in earlier:
            known |= self.written_scores(REFERENCE, round_)
        new = [pair for pair in {pair.pair_id: pair for pair in pairs}.values() if pair.pair_id not in known]
        known |= self.scored(model, REFERENCE, new, one_row)
        if held_out and self.plan.round == 0:
            known |= self.scored(model, HELD_OUT_REFERENCE, held_out, one_row)
        elif held_out:
            known |= self.written_scores(HELD_OUT_REFERENCE, 0)
        return known

    def scored(self, model: Any, name: str, pairs: Sequence[Pair], one_row: bool) -> Scores:
        """Score pairs and write that down, or adopt what an earlier attempt of this step wrote."""
        if not _said_by_worker_0(self.rank == 0 and self.step.find_output(name) is not None):
            size, device = self.settings.train_batch_size_per_device, this_device()
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                scores = score_under_reference(model, pairs, size, self.pad, one_row, device)
            if self.rank == 0:
                self.step.write_output(name, to_parquet(scores, ReferenceScore))
            dist.barrier()
        data = self.ledger.store.get(layout.output(self.plan.round, "policy", name)).data
        return by_pair(from_parquet(data, ReferenceScore, name))

    def written_scores(self, name: str, round_: int) -> Scores:
        """Return the scores that an earlier round wrote."""
        return by_pair(from_parquet(self.read("policy", name, round_), ReferenceScore, name))

    def go_on_from(self, starting_model: Any, folder: Path) -> Any:
        """Return the policy to go on from: in the first round, that is the starting model itself."""
        first = self.plan.policy.round == STARTING_MODEL
        if self.settings.lora_rank and first:
            return with_new_adapter(starting_model, self.settings, derive(self.ledger.seed, "adapter"))
        if self.settings.lora_rank:
            return with_saved_adapter(starting_model, folder / "adapter", trainable=True)
        if first:
            return starting_model
        del starting_model
        return load_model(folder / "model", self.settings)

    def fetch_checkpoint(self, folder: Path) -> None:
        """Bring what an earlier round left to go on from; before the first round there is nothing."""
        weights = "adapter" if self.settings.lora_rank else "model"
        for name in () if self.plan.policy.round == STARTING_MODEL else (weights, "optimizer"):
            self.fetch(name, folder)

    def fetch(self, name: str, folder: Path) -> None:
        """Bring a folder that an earlier round left to this host: its first worker fetches it for all."""
        if self.rank == 0:
            self.step.download_folder("policy", name, folder / name, round_=self.plan.policy.round)
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
        steps = list(optimisation_steps(pairs, self.settings.train_batch_size, seeds))[: self.settings.max_sgd_steps]
        curve: Curve = []
        for number, step in enumerate(steps, 1):
            curve.append(optimiser.take(step, self.rate(taken + number)))
            self.tokens += sum(pair.length for pair in step if not pair.is_identical)
            if self.rank == 0:
                told = {"done": number, "of": len(steps), "tokens": self.tokens, "loss": curve[-1]["loss"]}
                progress.tell("train", self.plan.round, "work", **told)
        return curve

    def measure(self, optimiser: Optimiser, held_out: Sequence[Pair]) -> dict[str, float]:
        """Measure the new policy on the held-out pairs, if there are any."""
        if not held_out:
            return {}
        accuracy, margin = optimiser.measure(held_out)
        return {"held_out_accuracy": accuracy, "held_out_margin": margin}

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1: none is spent at a rate of zero."""
        chosen, total = self.settings, self.total_steps
        warmup = warmup_steps(total, chosen.lr_warmup_ratio)
        return SCHEDULES[chosen.lr_scheduler](step, total, warmup, chosen.learning_rate, chosen.min_lr_ratio)

    @cached_property
    def total_steps(self) -> float:
        """Return the length of the learning rate's course: the steps that the budget pays for, or a multiple."""
        chosen = self.settings
        budget = self.plan.queries_spent + self.plan.queries_left
        duels = self.plan.duels or self.ledger.experiment.settings["prompts"]["rollout_batch_size"]
        rows = rows_of_rounds(budget, duels, self.plan.rounds)
        own = buffer_sizes(rows, chosen.pi_buffer_maxlen, chosen.buffer_clear_every)
        sizes = [size + len(self.plan.outside) for size in own]
        paid = total_steps(sizes, chosen.max_epochs, chosen.train_batch_size, chosen.max_sgd_steps)
        return paid * chosen.max_step_adjustment

    def leave(self, learner: Learner, folder: Path, taken: int) -> None:
        """Write policy and optimizer state to the ledger; after the last round nobody goes on from the latter."""
        new = folder / "new"
        with self.watch.of("export"):
            weights = learner.trained() if self.settings.lora_rank else learner.weights()
            state = {} if self.plan.last else learner.state()
            if self.rank == 0:
                self.save(learner.model.module, weights, new)
                if state:
                    save_optimizer(state, taken, new / "optimizer")
        with self.watch.of("upload"):
            for name in ("model", "adapter", "optimizer") if self.rank == 0 else ():
                if (new / name).is_dir():
                    self.step.upload_folder(name, new / name)

    def save(self, model: Any, weights: Mapping[str, Tensor], new: Path) -> None:
        """Write the policy as a whole model; where an adapter is trained, that too, for the next round."""
        if self.settings.lora_rank:
            save_adapter(model, weights, new / "adapter")
            model = merged(load_model(self.starting_model, self.settings), new / "adapter")
            weights = model.state_dict()
        save_policy(model, weights, self.starting_model, new / "model")

    def counts(self, rows: Sequence[Pair], curve: Curve, taken: int) -> dict[str, int]:
        """Return the round's figures.

        `unlabelled`: clashes, and duels that the oracle gave no label. `identical`: pairs that differ in text alone.
        """
        identical = [pair for pair in rows if pair.is_identical]
        unlabelled = sum(not pair.chosen for pair in identical)
        outside = sum(pair.duel_id.startswith(OUTSIDE) for pair in rows if not pair.is_identical)
        return {
            "pairs": len(rows) - len(identical),
            "unlabelled": unlabelled,
            "identical": len(identical) - unlabelled,
            "optimizer_steps": taken + len(curve),
            "steps_this_round": len(curve),
            "tokens": self.tokens,
            **({"outside_pairs": outside} if self.plan.outside else {}),
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


def this_device() -> torch.device:
    """Return what this worker computes on."""
    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")


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
    names = ("loss", "reward_margin", "accuracy", "chosen_logprob", "rejected_logprob")
    return {name: math.fsum(point[name] for point in curve) / len(curve) for name in names} if curve else {}


if __name__ == "__main__":
    with explain_failure(
        memory="lower policy.train_batch_size_per_device, or raise jobs.train_pod_memory on a CPU", peers=True
    ):
        main()
