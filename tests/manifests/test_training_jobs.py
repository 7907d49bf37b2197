"""The jobs that the launcher makes, held against the policy: scanners of manifests never see them."""

import pytest
from oatflow.components.jobs.job import TrainingJob
from oatflow.components.jobs.registry import KINDS
from oatflow.components.jobs.settings import JobSettings

from .policy import pod_specs, problems


@pytest.mark.parametrize("backend", ["pytorchjob", "trainjob"])
@pytest.mark.parametrize("pods", [1, 3])
@pytest.mark.parametrize("gpus", ["0", "2"])
@pytest.mark.parametrize("queue", ["", "team-queue"])
def test_a_training_job_meets_the_policy(backend, pods, gpus, queue):
    settings = JobSettings.parse(
        {"train_backend": backend, "train_pods": pods, "train_pod_gpus": gpus, "train_queue": queue}
    )
    job = TrainingJob("ab" * 32, 7, 2, "s3://bucket/x", "a.module", ("a",), pods * 2, 60.0)
    manifest = KINDS[backend].manifest(job, settings, {"AWS_SECRET_ACCESS_KEY": "kept-secret"})
    assert len(list(pod_specs(manifest))) == (1 if backend == "trainjob" else min(pods, 2))
    assert problems(manifest) == []
