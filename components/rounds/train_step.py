"""The training step: starts the training job, waits for it, and checks that it left a policy."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from .. import progress
from ..errors import TrainingFailed
from ..jobs.backends import open_jobs
from ..jobs.job import TrainingJob
from ..jobs.settings import JobSettings
from ..ledger.claim import kept_claim
from ..ledger.done import Done
from ..ledger.ledger import FIXED_POLICY, Ledger
from ..ledger.owner import process_start
from ..policy.scripted import count_pairs, write_scripted_policy
from ..policy.settings import PolicySettings
from ..records.tables import PREFERENCES

PROGRAM = "oatflow.components.rounds.training_program"


def run_train(ledger: Ledger, round_: int, run: str) -> Done:
    """Train the round's policy, or adopt it. Raises `TrainingFailed` with the job's reason and last lines."""
    settings = ledger.section(PolicySettings, "policy")
    if settings.learn_rm_only:
        return keep_starting_model(ledger, round_, run)
    if settings.trainer == "scripted":
        return train_scripted(ledger, round_, run)
    return launch_training(ledger, round_, run, settings)


def launch_training(ledger: Ledger, round_: int, run: str, settings: PolicySettings) -> Done:
    """Return the policy that a training job leaves in the ledger; an earlier attempt's is adopted."""
    done = ledger.done(round_, "policy")
    if done is not None:
        return done
    asked = process_start()
    with progress.failures_told("train", round_), kept_claim(ledger.store, round_, run) as claim:
        ledger.wait_as_claimed(claim)
        arguments = (ledger.store.uri, str(round_), run, str(asked))
        job = TrainingJob(
            experiment=ledger.identity,
            round=round_,
            token=claim.token,
            ledger=ledger.store.uri,
            module=PROGRAM,
            arguments=arguments,
            workers=settings.train_workers,
            timeout_seconds=settings.train_timeout_seconds,
        )
        open_jobs(ledger.section(JobSettings, "jobs")).run(job)
    done = ledger.done(round_, "policy")
    if done is None:
        raise TrainingFailed(
            f"round {round_}: the job ended well after {time.time() - asked:.0f} s, but left no policy"
        )
    return done


def keep_starting_model(ledger: Ledger, round_: int, run: str) -> Done:
    """Leave the starting model as the policy; the round's labels are for the reward model alone."""
    with ledger.step(round_, "policy", run) as step:
        if step.done is not None:
            return step.done
        begun = time.time()
        timings = {"startup": begun - process_start(), "work": time.time() - begun}
        return step.mark_done(counts={}, timings=timings, facts={FIXED_POLICY: True})


def train_scripted(ledger: Ledger, round_: int, run: str) -> Done:
    """Make the scripted policy of the round, or adopt it."""
    with ledger.step(round_, "policy", run) as step:
        if step.done is not None:
            return step.done
        begun = time.time()
        plan, parts = ledger.plan(round_), step.read_parts(PREFERENCES.step, PREFERENCES.name)
        with tempfile.TemporaryDirectory() as folder:
            outside = (row.prompt_id.encode() for row in plan.outside)
            write_scripted_policy(Path(folder), plan.policy.digest, [*parts, *outside])
            step.upload_folder("model", Path(folder))
        counts = count_pairs(PREFERENCES.join_parts(parts), plan.outside)
        return step.mark_done(counts, {"startup": begun - process_start(), "work": time.time() - begun})
