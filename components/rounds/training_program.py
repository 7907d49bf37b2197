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

from ..jobs.orphans import die_with_parent
from ..ledger.ledger import Ledger
from ..ledger.step import Step
from ..policy.learner import init_workers
from ..policy.starting_model import find_starting_model
from ..policy.trainer import Trainer
from ..policy.workers import local_rank, share_folder, share_number
from ..prompts.template import load_tokenizer
from ..records.plan import Plan
from ..step_ending import explain_failure
from ..store.transfer import download_folder
from .experiment import ExperimentSettings, read_settings
from .round_trainer import make_trainer
from .steps import gather_round


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
            for name in () if trainer.given.is_first else name_checkpoint(ledger, plan, settings):
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
    starting_model = find_starting_model(settings.policy, ledger.setting_stores)
    return make_trainer(
        gather_round(ledger, plan.round, settings),
        finished=step if rank == 0 else ledger,
        keep=step if rank == 0 else None,
        prompts_of=lambda round_: ledger.read_plan(round_).prompts,
        starting_model=starting_model,
        tokenizer=load_tokenizer(starting_model, settings.policy.trust_remote_code),
        rank=rank,
        world=world,
    )


def name_checkpoint(ledger: Ledger, plan: Plan, settings: ExperimentSettings) -> tuple[str, ...]:
    """Return the folders that training goes on from."""
    weights = "adapter" if settings.policy.lora_rank else "model"
    done = ledger.find_done(plan.policy.round, "policy")
    # Former versions kept no optimizer state in a round that they took for the experiment's last.
    return (weights, "optimizer") if done is None or done.list_folder("optimizer") else (weights,)


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
