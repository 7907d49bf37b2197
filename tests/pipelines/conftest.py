"""What tests of running pipelines share."""

import json
import time

import pytest


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
