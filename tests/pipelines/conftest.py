"""What tests of running pipelines share."""

import json
import shutil
import time
from hashlib import sha256

import pytest
from oatflow.pipelines.alignment.pipeline import compile_pipeline
from oatflow.pipelines.cluster import submission


def _wait_for(folder, step, event, seconds=300):
    """Wait until a step of the experiment in `folder` tells an event."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        for file in (folder / "home" / "logs").glob("*.progress.jsonl"):
            told = [json.loads(line) for line in file.read_text().splitlines()]
            if any((line["step"], line["event"]) == (step, event) for line in told):
                return
        time.sleep(0.02)
    raise AssertionError(f"{step} never told {event}")


@pytest.fixture(scope="session")
def wait_for():
    return _wait_for


@pytest.fixture
def compiled_once(monkeypatch, tmp_path_factory):
    """Compile each build once for all tests: what is compiled does not depend on the settings."""
    folder = tmp_path_factory.getbasetemp()

    def compile_or_copy(rounds, path, build):
        kept = folder / f"{sha256(repr((rounds, build)).encode()).hexdigest()}.yaml"
        if not kept.exists():
            compile_pipeline(rounds, kept, build)
        shutil.copy(kept, path)

    monkeypatch.setattr(submission, "compile_pipeline", compile_or_copy)
