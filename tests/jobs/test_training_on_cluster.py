"""Real training in a job's pods: DeepSpeed and gloo between two of them, launched as the train step does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from oatflow.components.ledger.ledger import Ledger

pytestmark = pytest.mark.slow

STEP = """
import sys
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.steps import run_train
run_train(Ledger.open(sys.argv[1]), 0, "run")
"""


@pytest.fixture
def on_cluster(double, new_trial, monkeypatch):
    """Return a maker of experiments whose training runs on the cluster, in two pods; their first round is open."""
    double.use_real_torchrun()
    double.pod_environment["DS_ACCELERATOR"] = "cpu"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def make(lease_seconds=60.0, restarts=0, **policy):
        trial = new_trial(train_workers=2, **policy)
        trial.settings["jobs"] |= {"train_backend": "pytorchjob", "train_pods": 2, "train_restarts": restarts}
        trial.settings["ledger"] |= {"lease_seconds": lease_seconds}
        trial.open(0)
        return trial

    return make


def test_two_pods_train_together_and_leave_a_policy_in_the_ledger(double, on_cluster, tmp_path):
    trial = on_cluster(zero_stage=2)
    done = trial.train(0)
    assert done.counts["pairs"] == 5 and done.list_folder("model")
    assert len(double.runs[0].pods) == 2
    trial.close(0)
    assert trial.ledger.read_head().round == 0


def test_the_programs_own_error_comes_through_the_cluster(on_cluster):
    from oatflow.components.errors import TrainingFailed

    trial = on_cluster(beta=1e38)
    told = r": the norm of the gradient is nan on the duels [0-9a-f]{24}, "
    with pytest.raises(TrainingFailed, match=told):
        trial.train(0)


def test_training_goes_on_with_new_workers_when_one_was_out_of_memory(double, on_cluster, wait_until):
    trial = on_cluster(restarts=1, max_epochs=30)
    step = step_of(trial)
    wait_until(lambda: both_train(double) and any('"work"' in line for line in log_of(double)), 120)
    # Rank 0 does not notice, as on a GPU that waits for its peer.
    os.kill(worker_of(double.pod("master-0")), signal.SIGSTOP)
    double.pod("worker-0").kill()
    assert step.wait(400) == 0
    assert len(double.runs) == 2
    assert trial.ledger.find_done(0, "policy").counts["pairs"] == 5


def step_of(trial):
    return subprocess.Popen([sys.executable, "-c", STEP, trial.uri], env=dict(os.environ))


def worker_of(pod):
    torchrun = pod._process.pid
    return int(Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text())


def both_train(double):
    return double.runs and len(double.runs[0].pods) == 2 and all(pod.is_running for pod in double.runs[0].pods)


def test_a_step_that_is_killed_and_run_again_gets_its_policy_from_the_same_job(double, on_cluster, wait_until):
    trial = on_cluster()
    step = step_of(trial)
    wait_until(lambda: both_train(double))
    step.send_signal(signal.SIGKILL)
    step.wait()
    assert trial.train(0).counts["pairs"] == 5
    assert len(double.runs) == 1


def test_an_orphan_stops_itself_when_its_lease_ends(double, on_cluster, wait_until):
    # It would learn for ever; nobody renews its claim once the step is gone.
    trial = on_cluster(lease_seconds=8.0, max_epochs=100_000)
    step = step_of(trial)
    wait_until(lambda: both_train(double) and any('"work"' in line for line in log_of(double)), 120)
    step.send_signal(signal.SIGKILL)
    step.wait()
    wait_until(lambda: failed(double), 120)
    assert any("ran out: the step that kept it alive is gone" in line for line in log_of(double))
    assert Ledger.open(trial.uri).find_done(0, "policy") is None


def log_of(double):
    return [line for log in double.runs[0].pods[0].logs for _, line in log.lines]


def failed(double):
    conditions = double.job().get("status", {}).get("conditions", ())
    return any(one["type"] == "Failed" and one["status"] == "True" for one in conditions)
