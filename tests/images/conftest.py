"""The images, built once a session, and the engine that runs them. `images/cpu/engine.sh` sees that there is one."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import docker
import pytest
from oatflow.components.images import CONTROL, ORACLE, SAMPLER, TRAINER
from oatflow.pipelines.laptop.align import THIS_MACHINE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Build the images; return the name of each. Not a secret of the builder's may get into them."""
    told = {"BASE_IMAGE": "oatflow-base:python3.11", "PYTHON": sys.executable, "VARIANT": "cpu"}
    secrets = dict.fromkeys(["AWS_SECRET_ACCESS_KEY", "HF_TOKEN"], "builders-own-secret")
    environment = {**told, **os.environ, **secrets}
    # Several processes of one run of the tests build one after the other: all but the first find every layer made.
    with open(tmp_path_factory.getbasetemp().parent / "images.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = subprocess.run(["images/build.sh"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    shipped = {"control": CONTROL, "sampler": SAMPLER, "oracle": ORACLE, "trainer": TRAINER}
    return {name: THIS_MACHINE.image(image) for name, image in shipped.items()}


@pytest.fixture(scope="session")
def engine():
    client = docker.from_env()
    yield client
    client.close()
