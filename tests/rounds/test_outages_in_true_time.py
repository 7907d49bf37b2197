"""A real store that is away for 90 seconds, with the true times, in one step for each kind of outage."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from oatflow.components.oracles.simulated import SimulatedOracle
from oatflow.components.rounds import train_step

from .absent_store import RealServer
from .round_by_step import KINDS, ORDER, Experiment, JobDouble, play_undisturbed

TRUE = {"refuses": "train", "500": "label", "hangs": "sample"}
"""Where the outage of each kind is in the test that takes its time."""


def play_in_true_time(kind, place, server, folder):
    """Play a round whose store is away for 90 s, and write down what came of it. Runs in a process of its own."""
    SimulatedOracle.paid = True
    train_step.open_jobs = lambda settings: JobDouble()
    experiment = Experiment(RealServer(server), place, lease=20.0)
    for step in ORDER:
        if step == TRUE[kind]:
            experiment.leave_in(step, kind, seconds=90.0)
        experiment.play(step)
    assert experiment.store.outages == 1 and experiment.ledger.read_head().round == 0
    digests = {key: hashlib.sha256(data).hexdigest() for key, data in experiment.truth().items()}
    (Path(folder) / "truth.json").write_text(json.dumps(digests))


@pytest.mark.slow
def test_a_real_store_that_is_away_for_90_seconds_fails_no_step(s3_store_uri, tmp_path):
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
        "from rounds.test_outages_in_true_time import play_in_true_time; play_in_true_time(*sys.argv[1:])"
    )
    (tmp_path / "undisturbed").mkdir()
    truth, questions = play_undisturbed(tmp_path / "undisturbed")
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
        expected = {key: hashlib.sha256(data).hexdigest() for key, data in truth.items()}
        assert json.loads((tmp_path / kind / "truth.json").read_text()) == expected
        assert sorted((tmp_path / kind / "asked").read_text().split()) == questions
        away = re.search(r"answers again, after (\d+) (s|min)", said)
        assert away and "trying again for up to 10 min" in said
