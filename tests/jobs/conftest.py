"""A cluster small enough for a test, and the rounds of the policy room's tests, to be trained on it."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from pathlib import Path

import pytest
from oatflow.components.jobs import cluster, rank_zero_log, watch
from oatflow.components.jobs.job import TrainingJob
from oatflow.components.jobs.launcher import ClusterJobs
from oatflow.components.jobs.settings import JobSettings

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from kubernetes_api_double.schema import CrdSchema  # noqa: E402
from kubernetes_api_double.server import KubernetesApiDouble  # noqa: E402

GOLDEN = HERE.parent / "golden"
EXPERIMENT = "0123456789abcdef" * 4
LEDGER = "s3://bucket/private/team-a/oatflow/test"


def load_sibling(name: str, path: Path):
    """Load another room's conftest, for its fixtures."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_rounds = load_sibling("rounds_to_train", HERE.parent / "policy" / "conftest.py")
tiny_model, new_trial = _rounds.tiny_model, _rounds.new_trial


@pytest.fixture(scope="session")
def schemas() -> dict[str, CrdSchema]:
    """The schemas of both kinds of job, by the name of the backend."""
    names = {"pytorchjob": "pytorchjob.v1.9.4.json", "trainjob": "trainjob.v2.3.0.json"}
    return {backend: CrdSchema(GOLDEN / name) for backend, name in names.items()}


@pytest.fixture
def double(schemas, tmp_path, monkeypatch):
    """A cluster that the real client finds by KUBECONFIG; what takes seconds there takes moments here."""
    made = KubernetesApiDouble(list(schemas.values()), tmp_path)
    for name in ("KUBERNETES_SERVICE_HOST", "POD_NAME", "POD_UID", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
    for module, name, value in (
        (cluster, "PAUSE_SECONDS", 0.02),
        (cluster, "PATIENCE_SECONDS", 5.0),
        (rank_zero_log, "PAUSE_SECONDS", 0.02),
        (watch, "TICK_SECONDS", 0.05),
    ):
        monkeypatch.setattr(module, name, value)
    yield made
    made.close()


@pytest.fixture
def settings():
    """Return a maker of settings for a small job."""

    def make(**given) -> JobSettings:
        return JobSettings.parse({"train_backend": "pytorchjob", "train_restarts": 0, **given})

    return make


@pytest.fixture
def job(double):
    """Return a maker of jobs that run a piece of Python in every worker."""

    def make(program="", *arguments, workers=1, seconds=60.0, token=3, ledger=LEDGER) -> TrainingJob:
        (double.folder / "a_program.py").write_text(program)
        return TrainingJob(EXPERIMENT, 7, token, ledger, "a_program", tuple(arguments), workers, seconds)

    return make


class Launch(threading.Thread):
    """A launcher at work while the test does something else."""

    def __init__(self, settings: JobSettings, job: TrainingJob):
        super().__init__(daemon=True)
        self._settings, self._job = settings, job
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            ClusterJobs.open(self._settings).run(self._job)
        except BaseException as error:  # Raised again in the test's own thread.
            self.error = error

    def result(self) -> None:
        self.join(60)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


@pytest.fixture
def launch(double):
    return Launch


@pytest.fixture
def wait_until():
    """Return a wait for something to become true, with a bound."""

    def wait(truth, seconds=60.0):
        end = time.monotonic() + seconds
        while not truth():
            assert time.monotonic() < end
            time.sleep(0.01)

    return wait
