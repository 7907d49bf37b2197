"""The main job on the real stack, with a tiny random model: SeaweedFS, vLLM, DeepSpeed, kfp.local, the command line."""

import os
import signal
import subprocess
import sys

import pytest
from oatflow.components.ledger.ledger import Ledger
from oatflow.pipelines.laptop.embedded_s3 import embedded_s3
from oatflow.pipelines.laptop.place import experiment_uri

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COMMAND = [sys.executable, "-m", "oatflow.pipelines.cli", "align"]
FLAGS = ["--rollout-batch-size", "6", "--max-queries", "12", "--max-eval", "4", "--generate-max-length", "12",
         "--eval-generate-max-length", "12", "--train-batch-size", "4", "--train-batch-size-per-device", "2",
         "--reward", "length"]  # fmt: skip


def start(folder, model, *more):
    environment = {**os.environ, "OATFLOW_HOME": str(folder / "home"), "OATFLOW_ORACLE_LOG": str(folder / "asked")}
    environment.pop("AWS_ACCESS_KEY_ID", None)
    command = [*COMMAND, "--pretrain", str(model), *FLAGS, *more]
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(running):
    out, _ = running.communicate(timeout=600)
    assert running.returncode == 0, out
    return out


def read(folder):
    """The bytes of all plans, duels and preferences, the rounds done, and how many objects are intact."""
    with embedded_s3(folder / "home") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        ledger = Ledger.open(experiment_uri(server.uri("private/local/oatflow"), "demo"))
        names = ("/plan.json", "/duels.parquet", "/preferences-0000.parquet")
        found = {e.key: ledger.store.get(e.key).data for e in ledger.store.list("rounds/") if e.key.endswith(names)}
        return found, ledger.read_head().round + 1, len(list(ledger.verify_objects()))


@pytest.fixture(scope="module")
def tiny_model(make_model, tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"), 1, "bfloat16")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("undisturbed")
    out = finish(start(folder, tiny_model))
    return folder, out


def test_an_experiment_runs_to_its_end_and_shows_what_it_measured(undisturbed):
    folder, out = undisturbed
    assert "Report: " in out
    found, rounds, intact = read(folder)
    # Two rounds for the budget, and further ones for what clashes save.
    assert rounds >= 2 and len(found) == 3 * rounds and intact > 30
    assert (folder / "home" / "reports" / "demo.html").is_file()
    asked = (folder / "asked").read_text().split()
    assert len(asked) == len(set(asked))


def test_killed_while_training_and_started_again_it_ends_with_the_same_bytes(
    undisturbed, tmp_path, tiny_model, wait_for
):
    running = start(tmp_path, tiny_model)
    wait_for(tmp_path, "train", "work")
    running.send_signal(signal.SIGKILL)
    running.communicate()
    finish(start(tmp_path, tiny_model))
    assert read(tmp_path)[0] == read(undisturbed[0])[0]
    asked = (tmp_path / "asked").read_text().split()
    assert len(asked) == len(set(asked))


EXPLORING = {
    "SEA": ["--exp-method", "EnnBAITS", "--num-samples", "5", "--model-rollout", "true", "--burn-in-period", "1",
            "--objective", "explore_and_exploit", "--num-bon", "2"],
    "XPO": ["--exp-method", "XPO", "--max-queries", "6"],
    "APL": ["--exp-method", "APL", "--num-samples", "3", "--max-queries", "6"],
}  # fmt: skip


@pytest.mark.parametrize("method", EXPLORING)
def test_an_experiment_that_explores_runs_to_its_end(method, tiny_model, tmp_path):
    out = finish(start(tmp_path, tiny_model, *EXPLORING[method]))
    assert "Regret" in out and "Report: " in out
    page = (tmp_path / "home" / "reports" / "demo.html").read_text()
    assert ("foresaw" in page) == (method == "SEA")
    asked = (tmp_path / "asked").read_text().split()
    assert len(asked) == len(set(asked))


def test_nothing_that_was_started_goes_on_running(undisturbed):
    left = subprocess.run(["pgrep", "-af", str(undisturbed[0])], capture_output=True, text=True, check=False).stdout
    assert left == ""
