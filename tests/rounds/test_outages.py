"""The store goes away in the middle of a step: the step waits, goes on, and the ledger ends as if nothing had happened.

Time is scaled: a lease of 0.4 s, an outage of 1.5 s, pauses of a tenth of a second. One test of each kind of outage has
the true times, a real server behind it, and 90 seconds.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from oatflow.components.errors import ClaimLost, StoreUnreachable
from oatflow.components.evaluation.match import run_evaluation
from oatflow.components.labeling.labeling import run_labeling
from oatflow.components.ledger import layout
from oatflow.components.ledger.claim import read_claim
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.ledger.sealed import seal
from oatflow.components.oracles.simulated import SimulatedOracle
from oatflow.components.policy import training
from oatflow.components.policy.settings import PolicySettings
from oatflow.components.reward_model.learning import run_fit
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import open_round
from oatflow.components.sampling.generation import run_sampling
from oatflow.components.store import connections, patience
from oatflow.components.store.store import open_store
from oatflow.pipelines.alignment.config import gather

from .absent_store import KEYS, AbsentStore, Memory, RealServer

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

# Processes of a training job, which watch the claim. One does with the ledger what `policy.train` does, without a
# model; the other one would work for ever.
JOB = """
import sys, time
from functools import partialmethod
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.policy.scripted import train_scripted
from oatflow.components.store import connections, patience
patience._PAUSE_SECONDS, patience._LONGEST_PAUSE_SECONDS, connections.ANSWER_SECONDS = map(float, sys.argv[4:])
Ledger.step = partialmethod(Ledger.step, watches=True)
ledger, round_, run = Ledger.open(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
"""
TRAINS = JOB + "train_scripted(ledger, round_, run)"
NEVER_ENDS = (
    JOB
    + """
with ledger.step(round_, "policy", run) as step:
    step.write("begun", b"")
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
    training.launch_training(ledger, round_, run, PolicySettings())


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
            self.ledger.store.put(layout.claim(0), seal(short.to_json()))
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
        timeless = [
            key for key in keys if not re.search(r"done\.json|claim\.json|round\.json|HEAD|receipts-|asking-", key)
        ]
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
    patch.setattr(training, "open_jobs", lambda settings: JobDouble())
    patch.setenv("OATFLOW_ORACLE_LOG", str(folder / "asked"))
    patch.setenv("OATFLOW_PROGRESS", str(folder / "progress"))
    return lambda: (folder / "asked").read_text().split()


@pytest.fixture
def asked(monkeypatch, tmp_path):
    return scale(monkeypatch, tmp_path)


@pytest.fixture
def experiment(asked):
    experiment = Experiment(Memory())
    yield experiment
    experiment.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a round writes, and what it asks, when the store is always there."""
    with pytest.MonkeyPatch.context() as patch:
        asked = scale(patch, tmp_path_factory.mktemp("undisturbed"))
        experiment = Experiment(Memory())
        for step in ORDER:
            experiment.play(step)
        truth = experiment.truth()
        experiment.close()
        return truth, sorted(asked())


# Each kind in one step: the others are slow for so many.
FEW = {("sample", "refuses"), ("label", "500"), ("train", "hangs")}


def cases(steps):
    return [
        pytest.param(step, kind, marks=[] if (step, kind) in FEW else pytest.mark.slow)
        for step in steps
        for kind in KINDS
    ]


@pytest.mark.parametrize(("outage_in", "kind"), cases(ORDER))
def test_a_store_that_is_away_for_several_leases_fails_no_step(experiment, asked, undisturbed, capfd, outage_in, kind):
    for step in ORDER:
        if step == outage_in:
            experiment.leave_in(step, kind)
        experiment.play(step)
    assert experiment.store.outages == 1
    truth, questions = undisturbed
    assert experiment.truth() == truth and len(truth) > 12
    assert sorted(asked()) == questions and set(Counter(questions).values()) == {1}
    assert experiment.ledger.head().round == 0
    assert len(list(experiment.ledger.verify())) > 15
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("the store ")]
    assert any("does not answer" in line and "trying again for up to 10 min" in line for line in lines)
    assert any("answers again, after" in line for line in lines)


@pytest.mark.parametrize(("step", "kind"), cases(STEPS))
def test_another_run_that_comes_while_the_store_is_away_wins_and_the_old_one_stops(
    experiment, asked, undisturbed, step, kind
):
    before, taken = ORDER[: ORDER.index(step)], []

    def take_over():
        # The other run's pods reach the store by another way.
        assert open_round(f"s3://bucket/experiment?endpoint={experiment.direct.endpoint}", SETTINGS, "another") == 0
        taken.append(time.monotonic())

    for each in before:
        experiment.play(each)
    experiment.leave_in(step, kind, meanwhile=take_over)
    with pytest.raises(ClaimLost, match="held by run 'another'"):
        experiment.play(step)
    late = [entry for entry in experiment.store.log if entry[0] > taken[0] and entry[1] != "GET" and entry[3] < 300]
    assert late == []
    for each in ORDER[ORDER.index(step) :]:
        experiment.play(each, "another")
    assert experiment.ledger.head().round == 0
    truth, _ = undisturbed
    # Paid questions whose answers were lost are not asked again, so only labels may be missing then.
    if step != "label":
        assert experiment.truth() == truth
    assert set(Counter(asked()).values()) == {1}


def test_a_store_that_stays_away_fails_the_step_with_one_line_that_says_what_to_do(experiment, monkeypatch):
    monkeypatch.setitem(SETTINGS["ledger"], "store_patience_seconds", 1.0)
    experiment.play("open")
    experiment.leave_in("sample", "500", seconds=4.0)
    with pytest.raises((StoreUnreachable, ClaimLost)) as raised:
        experiment.play("sample")
    told = str(raised.value)
    assert f"no answer from {experiment.store.endpoint} for 1 s (500 InternalError: We encountered" in told
    assert "store_patience_seconds=1 is how long a step waits" in told and "\n" not in told


def test_an_orphan_stops_by_itself_although_the_store_was_away(experiment):
    """The step that launched the job is gone; nobody renews the claim once the store is back."""
    experiment.lease = 2.0
    for step in ("open", "sample", "label"):
        experiment.play(step)
    experiment.leave_in("train", "refuses")
    job = start_job(NEVER_ENDS, experiment.uri, "0", "run")
    _, said = job.communicate(timeout=60)
    assert job.returncode and "the step that kept it alive is gone" in said
    assert experiment.store.outages == 1


TRUE = {"refuses": "train", "500": "label", "hangs": "sample"}
"""Where the outage of each kind is in the test that takes its time."""


def play_in_true_time(kind, place, server, folder):
    """Play a round whose store is away for 90 s, and write down what came of it. Runs in a process of its own."""
    SimulatedOracle.paid = True
    training.open_jobs = lambda settings: JobDouble()
    experiment = Experiment(RealServer(server), place, lease=20.0)
    for step in ORDER:
        if step == TRUE[kind]:
            experiment.leave_in(step, kind, seconds=90.0)
        experiment.play(step)
    assert experiment.store.outages == 1 and experiment.ledger.head().round == 0
    digests = {key: hashlib.sha256(data).hexdigest() for key, data in experiment.truth().items()}
    (Path(folder) / "truth.json").write_text(json.dumps(digests))


@pytest.mark.slow
def test_a_real_store_that_is_away_for_90_seconds_fails_no_step(s3_store_uri, undisturbed, tmp_path):
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
        "from rounds.test_outages import play_in_true_time; play_in_true_time(*sys.argv[1:])"
    )
    rounds = {}
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        place, _, server = s3_store_uri(f"away-{kind}").partition("?endpoint=")
        environment = {**os.environ, "OATFLOW_ORACLE_LOG": str(tmp_path / kind / "asked")}
        command = [sys.executable, "-c", program, kind, place, server, str(tmp_path / kind)]
        rounds[kind] = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    for kind, process in rounds.items():
        said, _ = process.communicate(timeout=500)
        assert process.returncode == 0, said
        truth, questions = undisturbed
        expected = {key: hashlib.sha256(data).hexdigest() for key, data in truth.items()}
        assert json.loads((tmp_path / kind / "truth.json").read_text()) == expected
        assert sorted((tmp_path / kind / "asked").read_text().split()) == questions
        away = re.search(r"answers again, after (\d+) (s|min)", said)
        assert away and "trying again for up to 10 min" in said
