"""The same rounds through the real MLflow, in an environment of its own: its requirements are not ours."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from oatflow.components.reporting.curves import metrics_of, read_rounds
from oatflow.components.reporting.settings import TrackingSettings
from oatflow.components.reporting.tracked import run_id, tracked_rounds

MLFLOW = "mlflow-skinny==3.17.2"
SEND_AND_READ = """
import json, sys
from mlflow import MlflowClient
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.reporting.settings import TrackingSettings
from oatflow.components.reporting.tracking import send_rounds

uri, settings = sys.argv[1], TrackingSettings.model_validate_json(sys.argv[2])
for _ in range(2):
    send_rounds(Ledger.open(uri), settings)
client = MlflowClient(settings.mlflow_uri)
(run,) = client.search_runs([client.get_experiment_by_name("oatflow").experiment_id])
files = client.list_artifacts(run.info.run_id, "round-00000")
points = {
    name: [[point.step, point.value] for point in client.get_metric_history(run.info.run_id, name)]
    for name in run.data.metrics
}
print(json.dumps({"points": points, "tags": run.data.tags, "files": [file.path for file in files]}))
"""


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    """The Python of an environment that has MLflow, and sees what this one has behind that."""
    folder = tmp_path_factory.mktemp("mlflow")
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", MLFLOW]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.fail(f"{MLFLOW} cannot be installed; this test needs a package index. {done.stderr.strip()[-500:]}")
    (theirs,) = folder.glob("lib/python*/site-packages")
    Path(theirs, "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return python


@pytest.mark.slow
def test_a_run_holds_every_metric_of_every_round_once_however_often_it_is_sent(explored_ledger, mlflow, tmp_path):
    settings = TrackingSettings(track="mlflow", mlflow_uri=(tmp_path / "mlflow").as_uri())
    command = [mlflow, "-c", SEND_AND_READ, explored_ledger.store.uri, settings.model_dump_json()]
    # MLflow wants to be asked before it keeps runs in a folder; a server needs no such thing.
    environment = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    measured = [metrics_of(row) for row in read_rounds(explored_ledger)]
    for name in {name for metrics in measured for name in metrics}:
        wanted = [[number, metrics[name]] for number, metrics in enumerate(measured) if name in metrics]
        assert told["points"][name] == wanted, name
    assert told["tags"]["oatflow.run"] == run_id(explored_ledger)
    first, _ = tracked_rounds(explored_ledger, sent=0)
    assert told["tags"]["policy.00000"] == f"{first.policy.uri} sha256={first.policy.digest}"
    assert told["files"] == ["round-00000/sample_duels.csv", "round-00000/sample_verdicts.csv"]
