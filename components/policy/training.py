"""The step of the policy room: start the training job, wait for it, and see that it left a policy."""

from __future__ import annotations

import time

from .. import progress
from ..errors import TrainingFailed
from ..jobs.backends import open_jobs
from ..jobs.job import TrainingJob
from ..jobs.settings import JobSettings
from ..ledger.claim import kept_claim
from ..ledger.done import Done
from ..ledger.ledger import FIXED_POLICY, Ledger
from ..ledger.owner import process_start
from .scripted import train_scripted
from .settings import PolicySettings

PROGRAM = "oatflow.components.policy.train"


def run_train(ledger: Ledger, round_: int, run: str) -> Done:
    """Train the round's policy, or adopt it. Raises `TrainingFailed` with the job's reason and last lines."""
    settings = ledger.section(PolicySettings, "policy")
    if settings.learn_rm_only:
        return keep_policy(ledger, round_, run)
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
            ledger.identity, round_, claim.token, ledger.store.uri, PROGRAM, arguments,
            settings.train_workers, settings.train_timeout_seconds,
        )  # fmt: skip
        open_jobs(ledger.section(JobSettings, "jobs")).run(job)
    done = ledger.done(round_, "policy")
    if done is None:
        raise TrainingFailed(
            f"round {round_}: the job ended well after {time.time() - asked:.0f} s, but left no policy"
        )
    return done


def keep_policy(ledger: Ledger, round_: int, run: str) -> Done:
    """Leave the starting model as the policy; the round's labels are for the reward model alone."""
    with ledger.step(round_, "policy", run) as step:
        if step.done is not None:
            return step.done
        begun = time.time()
        timings = {"startup": begun - process_start(), "work": time.time() - begun}
        return step.mark_done(counts={}, timings=timings, facts={FIXED_POLICY: True})
