"""The training step: starts the training job, waits for it, and checks that it left a policy."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from .. import progress
from ..errors import TrainingFailed
from ..jobs.backends import open_jobs
from ..jobs.job import TrainingJob
from ..ledger.claim import kept_claim
from ..ledger.done import Done
from ..ledger.ledger import FIXED_POLICY, Ledger
from ..ledger.owner import process_start
from ..policy.scripted import count_pairs, write_scripted_policy
from ..records.keep import StepOutputs, StepReport
from ..records.tables import PREFERENCES
from .experiment import read_settings
from .inputs import Round

PROGRAM = "oatflow.components.rounds.training_program"


def launch_training(ledger: Ledger, round_: int, run: str) -> Done:
    """Return the policy that a training job leaves in the ledger; an earlier attempt's is adopted.

    Raises:
        TrainingFailed: The job failed; the message has its reason and last lines.
    """
    done = ledger.find_done(round_, "policy")
    if done is not None:
        return done
    asked = process_start()
    with progress.report_failure("train", round_), kept_claim(ledger.store, round_, run) as claim:
        ledger.wait_as_claimed(claim)
        settings = read_settings(ledger.experiment.settings, claim.operational)
        job = TrainingJob(
            experiment=ledger.identity,
            round=round_,
            token=claim.token,
            ledger=ledger.store.uri,
            module=PROGRAM,
            arguments=(ledger.store.uri, str(round_), run, str(asked)),
            workers=settings.policy.train_workers,
            timeout_seconds=settings.policy.train_timeout_seconds,
        )
        open_jobs(settings.jobs).run(job)
    done = ledger.find_done(round_, "policy")
    if done is None:
        raise TrainingFailed(
            f"round {round_}: the job ended well after {time.time() - asked:.0f} s, but left no policy"
        )
    return done


def train_without_job(given: Round, kept: StepOutputs) -> StepReport:
    """Make the policy of a round that needs no training job: a scripted one, or the starting model as it is."""
    kept.begin_work()
    if given.settings.policy.learn_rm_only:
        return StepReport({}, {FIXED_POLICY: True})
    names = sorted(filter(PREFERENCES.is_part, kept.list_outputs(PREFERENCES.step, given.number)))
    parts = [kept.read_output(PREFERENCES.step, name, given.number) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        outside = (row.prompt_id.encode() for row in given.plan.outside)
        write_scripted_policy(Path(folder), given.plan.policy.digest, [*parts, *outside])
        kept.upload_folder("model", Path(folder))
    return StepReport(count_pairs(PREFERENCES.join_parts(parts), given.plan.outside))
