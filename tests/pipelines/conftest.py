"""What tests of running pipelines share."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from oatflow.pipelines.alignment.build import Build
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


@dataclass
class Package:
    """A compiled pipeline. Several tests read it, so none may change it."""

    path: Path

    @cached_property
    def _documents(self):
        return list(yaml.load_all(self.path.read_text(), yaml.CSafeLoader))

    @property
    def spec(self):
        return self._documents[0]

    @property
    def platform(self):
        return self._documents[1]

    @property
    def kubernetes(self):
        """What Kubernetes is told of each executor."""
        return self.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def _compile_apart(*given):
    """Compile in a thread: for every setting of a step KFP reads the whole call stack, and pytest's is long."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(compile_pipeline, *given).result()


@pytest.fixture(scope="session")
def compile_apart():
    return _compile_apart


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Return a compiler that compiles each number of rounds and build once for all tests."""
    folder = tmp_path_factory.mktemp("compiled")
    made = {}

    def compile_(rounds=2, build=None):
        name = sha256(repr((rounds, build or Build())).encode()).hexdigest()
        if name not in made:
            _compile_apart(rounds, folder / f"{name}.yaml", build)
            made[name] = Package(folder / f"{name}.yaml")
        return made[name]

    return compile_


@pytest.fixture
def compiled_once(monkeypatch, compiled):
    """Let the command line compile each build once for all tests: what is compiled does not depend on the settings."""
    monkeypatch.setattr(
        submission, "compile_pipeline", lambda rounds, path, build: shutil.copy(compiled(rounds, build).path, path)
    )
