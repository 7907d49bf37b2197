"""One round, step by step, on a store that can go away; its training runs in a job's double."""

import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from oatflow.components.ledger import layout
from oatflow.components.ledger.claim import read_claim
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.oracles.simulated import SimulatedOracle
from oatflow.components.records.sealed import seal_document
from oatflow.components.rounds import train_step
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import open_round
from oatflow.components.rounds.steps import run_evaluation, run_fit, run_labeling, run_sampling, run_train
from oatflow.components.store import connections, patience
from oatflow.components.store.store import open_store
from oatflow.pipelines.alignment.config import gather

from .absent_store import KEYS, AbsentStore, Memory

LEASE, OUTAGE = 0.4, 1.5
KINDS = ("refuses", "500", "hangs")
SETTINGS = gather(
    "scripted",
    None,
    {
        "rollout_batch_size": "6", "max_queries": "6", "max_eval": "4", "oracle_batch_size": "2", "reward": "length",
        "exp_method": "EnnBAITS", "num_samples": "4", "num_ensemble": "3", "bt_sample": "true",
    },
).model_dump(mode="json")  # fmt: skip

# Processes of a training job, which watch the claim. One does with the ledger what `training_program` does, without
# a model; the other one would work for ever.
JOB = """
import sys, time
from functools import partialmethod
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.store import connections, patience
patience._PAUSE_SECONDS, patience._LONGEST_PAUSE_SECONDS, connections.ANSWER_SECONDS = map(float, sys.argv[4:])
Ledger.open_step = partialmethod(Ledger.open_step, watches=True)
ledger, round_, run = Ledger.open(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
"""
TRAINS = JOB + "from oatflow.components.rounds.steps import run_train; run_train(ledger, round_, run)"
NEVER_ENDS = (
    JOB
    + """
with ledger.open_step(round_, "policy", run) as step:
    step.write_output("begun", b"")
    time.sleep(100)
"""
)


def start_job(program, ledger, round_, run):
    """Start a job's process, with the times of this test."""
    times = (patience._PAUSE_SECONDS, patience._LONGEST_PAUSE_SECONDS, connections.ANSWER_SECONDS)
    return subprocess.Popen(
        [sys.executable, "-c", program, ledger, round_, run, *map(str, times)], stderr=subprocess.PIPE, text=True
    )


class JobDouble:
    """Runs a training job as one process of its own, which watches the claim of the step that launched it."""

    def run(self, job):
        ledger, round_, run, _ = job.arguments
        process = start_job(TRAINS, ledger, round_, run)
        try:
            _, said = process.communicate()
        except KeyboardInterrupt:
            # As on a cluster, where the job outlives the step that has to stop.
            process.communicate()
            raise
        assert process.returncode == 0, said


def train(ledger, round_, run):
    train_step.launch_training(ledger, round_, run)


STEPS = {
    "sample": (run_sampling, "sampling"),
    "label": (run_labeling, "labeling"),
    "train": (train, "policy"),
    "fit": (run_fit, "reward_model"),
    "evaluate": (run_evaluation, "evaluation"),
}


class Experiment:
    """One round on a store that can go away. `direct` is a way to the same objects that cannot."""

    def __init__(self, upstream, place="s3://bucket/experiment", lease=LEASE):
        self.store, self.direct = AbsentStore(upstream), AbsentStore(upstream)
        self._place, self.lease = place, lease

    @property
    def uri(self):
        return f"{self._place}?endpoint={self.store.endpoint}"

    @property
    def ledger(self):
        return Ledger(open_store(f"{self._place}?endpoint={self.direct.endpoint}"))

    def play(self, step, run="run"):
        """Do one step of the round, as its pod does."""
        if step == "open":
            assert open_round(self.uri, SETTINGS, run) == 0
            # Shorter than a setting may be.
            claim, _ = read_claim(self.ledger.store, 0)
            short = replace(claim, lease_seconds=self.lease, expires=time.time() + self.lease)
            self.ledger.store.put(layout.claim_key(0), seal_document(short.to_json()))
        elif step == "close":
            close_round(self.uri, 0, run)
        else:
            STEPS[step][0](Ledger.open(self.uri), 0, run)

    def leave_in(self, step, kind, seconds=OUTAGE, meanwhile=lambda: None):
        """Let the store go away when the step writes for the first time."""
        where = {"open": "claim.json", "close": "round.json"}.get(step) or f"/{STEPS[step][1]}/"
        self.store.leave(kind, seconds, lambda method, path: method == "PUT" and where in path, meanwhile)

    def truth(self):
        """The bytes of all that the round wrote, but for times: those of marks, claims and receipts."""
        store = self.ledger.store
        keys = [entry.key for entry in store.list("")]
        timed = r"done\.json|claim\.json|round\.json|HEAD|receipts-|asking-|running\.json|marks\.jsonl|/digests/"
        timeless = [key for key in keys if not re.search(timed, key)]
        return {re.sub(r"policy/\d{4}-\w{6}/", "policy/", key): store.get(key).data for key in timeless}

    def close(self):
        self.store.close()
        self.direct.close()


ORDER = ("open", "sample", "label", "train", "fit", "evaluate", "close")


def scale(patch, folder):
    """Scale time, and let the oracle cost money; returns what says which duels it was asked about."""
    for name, value in KEYS.items():
        patch.setenv(name, value)
    patch.setattr(patience, "_PAUSE_SECONDS", 0.02)
    patch.setattr(patience, "_LONGEST_PAUSE_SECONDS", 0.1)
    patch.setattr(connections, "ANSWER_SECONDS", 0.5)
    patch.setattr(SimulatedOracle, "paid", True)
    patch.setattr(train_step, "open_jobs", lambda settings: JobDouble())
    patch.setenv("OATFLOW_ORACLE_LOG", str(folder / "asked"))
    patch.setenv("OATFLOW_PROGRESS", str(folder / "progress"))
    return lambda: (folder / "asked").read_text().split()


def play_undisturbed(folder):
    """Return what a round writes, and what it asks, when the store is always there."""
    with pytest.MonkeyPatch.context() as patch:
        asked = scale(patch, folder)
        experiment = Experiment(Memory())
        for step in ORDER:
            experiment.play(step)
        truth = experiment.truth()
        experiment.close()
        return truth, sorted(asked())


def play_steps(uri, round_, run):
    """Do all steps of an open round with the scripted engine and trainer, and close it."""
    ledger = Ledger.open(uri)
    fit = (run_fit,) if ledger.read_plan(round_).learns_rewards else ()
    for step in (run_sampling, run_labeling, run_train, *fit, run_evaluation):
        step(ledger, round_, run)
    close_round(uri, round_, run)
