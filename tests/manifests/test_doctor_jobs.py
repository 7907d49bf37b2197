"""The jobs that `oatflow doctor --host` starts: as harmless as the manifests, and one of them the same."""

import kubernetes_validate
import pytest
import yaml
from oatflow.components.images import CONTROL
from oatflow.components.jobs.settings import JobSettings
from oatflow.pipelines.cluster.probes import images_job, store_job
from oatflow.pipelines.doctor_command import TRAINER_ACCOUNT

from .conftest import MANIFESTS
from .policy import problems

SECRET = JobSettings.model_fields["s3_secret"].default
JOBS = {
    "images": lambda: images_job({"control": CONTROL, "oracle": "r.example:5000/o:1"}, "default", 60.0, ("login",)),
    "store": lambda: store_job(CONTROL, TRAINER_ACCOUNT, SECRET, None, 60.0),
    "store with an address": lambda: store_job(CONTROL, "me", "own", "s3://bucket/a", 0.5, ("login",)),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_breaks_no_policy_and_ends_itself(name):
    job = JOBS[name]()
    kubernetes_validate.validate(job, "1.33", strict=True)
    assert problems(job) == []
    spec = job["spec"]
    assert spec["activeDeadlineSeconds"] >= 60 and spec["ttlSecondsAfterFinished"] and spec["backoffLimit"] == 0
    assert spec["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_doctors_job_is_the_one_in_the_manifests():
    by_hand = yaml.safe_load((MANIFESTS / "examples/doctor/job.yaml").read_text())
    started = store_job("oatflow-control", TRAINER_ACCOUNT, SECRET, None, 600.0)
    assert started["spec"]["template"] == by_hand["spec"]["template"]
    assert started["metadata"]["labels"] == by_hand["metadata"]["labels"]


def test_each_job_has_a_name_of_its_own():
    assert len({JOBS["store"]()["metadata"]["name"] for _ in range(20)}) == 20
