"""The training job's program: direct preference learning on one round's preferences.

Run by torchrun on every worker. All workers read the round's inputs from the ledger; worker 0 alone holds the step,
writes the checkpoint straight to the store, and marks the step done. The step that launched the job renews the round's
claim. When it no longer does, or the claim is lost, worker 0 stops, and torchrun stops the others: a job whose
launcher is gone does not hold its GPUs for longer than the lease.
"""

from __future__ import annotations

import argparse
import os
import time
from contextlib import nullcontext
from pathlib import Path

import torch.distributed as dist

from ..exploration.registry import STRATEGIES
from ..jobs.orphans import die_with_parent
from ..ledger.ledger import Ledger
from ..ledger.step import Step
from ..policy.buffer import buffer_sizes
from ..policy.learner import init_workers
from ..policy.pairs import PairReader
from ..policy.schedule import rows_of_rounds, total_steps
from ..policy.settings import PolicySettings
from ..policy.starting_model import find_starting_model
from ..policy.trainer import RoundInputs, Trainer
from ..policy.workers import local_rank, share_folder, share_number
from ..prompts.template import load_tokenizer
from ..records.plan import STARTING_MODEL, Plan
from ..step_ending import explain_failure
from ..store.transfer import download_folder
from .experiment import ExperimentSettings, read_settings


def main() -> None:
    """Train one round; the arguments come from `train_step.launch_training`."""
    parser = argparse.ArgumentParser()
    # By position: torchrun takes names that begin like its own for itself.
    parser.add_argument("ledger")
    parser.add_argument("round", type=int)
    parser.add_argument("run")
    parser.add_argument("asked", type=float, help="when the step began, seconds since the epoch")
    given = parser.parse_args()
    die_with_parent(os.getppid())
    ledger = Ledger.open(given.ledger)
    claim = ledger.read_claim(given.round)
    ledger.wait_as_claimed(claim)
    settings = read_settings(ledger.experiment.settings, claim.operational)
    # Worker 0 may wait for the store while the others wait for it.
    rank, world = init_workers(ledger.patience_seconds)
    step = ledger.open_step(given.round, "policy", given.run, given.asked, watches=True)
    with step if rank == 0 else nullcontext():
        if not share_number(step.done is not None):
            train_on_worker(ledger, settings, step, rank, world, given.asked)
        dist.barrier()
    # Not after a failure: the other workers may be waiting in the middle of something, and torchrun ends them.
    dist.destroy_process_group()


def train_on_worker(
    ledger: Ledger, settings: ExperimentSettings, step: Step, rank: int, world: int, asked: float
) -> None:
    """Do one worker's part; worker 0 uploads the policy and marks the step done."""
    begun, plan = time.time(), ledger.read_plan(step.round)
    trainer = open_trainer(ledger, settings, plan, step, rank, world)
    watch = trainer.watch
    watch.seconds["startup"] = begun - asked
    with share_folder() as folder:
        with watch.time_part("load"):
            # First of all: what is missing there is said before anything is computed.
            weights = "adapter" if trainer.settings.lora_rank else "model"
            for name in () if trainer.given.is_first else (weights, "optimizer"):
                fetch_checkpoint(ledger, plan, step, name, folder / name, rank)
        counts, facts = trainer.train_round(folder)
        if rank == 0:
            with watch.time_part("upload"):
                for name in ("model", "adapter", "optimizer"):
                    if (folder / "new" / name).is_dir():
                        step.upload_folder(name, folder / "new" / name)
            watch.seconds["work"] = time.time() - begun
            step.mark_done(counts, dict(watch.seconds), facts)


def open_trainer(
    ledger: Ledger, settings: ExperimentSettings, plan: Plan, step: Step, rank: int, world: int
) -> Trainer:
    """Return the trainer of one worker, with everything that it needs from the ledger. Worker 0 alone uses `step`."""
    policy, prompts = settings.policy, settings.prompts
    starting_model = find_starting_model(policy, ledger.setting_stores)
    return Trainer(
        settings=policy,
        seed=settings.ledger.seed,
        given=RoundInputs(
            round=plan.round,
            is_first=plan.policy.round == STARTING_MODEL,
            is_last=plan.last,
            outside=plan.outside,
            held_out=ledger.eval_prompts(),
            # As long as the experiment's own answers may be: what fits a batch of those, fits one of these.
            longest_answer=settings.sampling.generate_max_length,
            rate_steps=count_rate_steps(policy, plan, prompts.rollout_batch_size),
        ),
        starting_model=starting_model,
        reader=PairReader(
            finished=step if rank == 0 else ledger,
            prompts_of=lambda round_: ledger.read_plan(round_).prompts,
            settings=policy,
            tokenizer=load_tokenizer(starting_model, policy.trust_remote_code),
            chat_template=prompts.apply_chat_template,
            from_reference=STRATEGIES[settings.exploration.exp_method].draws_from_reference,
        ),
        keep=step if rank == 0 else None,
        rank=rank,
        world=world,
    )


def count_rate_steps(settings: PolicySettings, plan: Plan, rollout_batch_size: int) -> float:
    """Return the length of the learning rate's course: the steps that the budget pays for, or a multiple."""
    rows = rows_of_rounds(plan.queries_spent + plan.queries_left, plan.duels or rollout_batch_size, plan.rounds)
    own = buffer_sizes(rows, settings.pi_buffer_maxlen, settings.buffer_clear_every)
    sizes = [size + len(plan.outside) for size in own]
    paid = total_steps(sizes, settings.max_epochs, settings.train_batch_size, settings.max_sgd_steps)
    return paid * settings.max_step_adjustment


def fetch_checkpoint(ledger: Ledger, plan: Plan, step: Step, name: str, folder: Path, rank: int) -> None:
    """Bring a folder that an earlier round left to this host: its first worker fetches it for all."""
    if rank == 0:
        step.download_folder("policy", name, folder, round_=plan.policy.round)
    elif local_rank() == 0:
        done = ledger.find_done(plan.policy.round, "policy")
        download_folder(ledger.store, done.list_folder(name) if done else (), folder)
    dist.barrier()


if __name__ == "__main__":
    with explain_failure(
        memory="lower policy.train_batch_size_per_device, or raise jobs.train_pod_memory on a CPU", peers=True
    ):
        main()
