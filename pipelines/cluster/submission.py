"""From an experiment's settings to a run on a cluster."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from oatflow.components.errors import ClusterError, RefusedInput
from oatflow.components.images import REGISTRY, TRAINER
from oatflow.components.rounds.experiment import ExperimentSettings
from oatflow.components.store.s3_address import S3Address

from ..alignment.build import Build
from ..alignment.form import form_arguments
from ..alignment.pipeline import compile_pipeline
from ..laptop.place import experiment_uri
from .kubeflow_client import Cluster, ClusterRefused, Package, Run

LEDGER = "OATFLOW_LEDGER"
POLL_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
_HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Submission:
    """The next `rounds` rounds of an experiment, as a user asked for them. `ledger` is the experiment's own URI."""

    experiment: str
    ledger: str
    settings: ExperimentSettings
    rounds: int
    registry: str = REGISTRY
    service_account: str | None = None


def cluster_ledger(root: str | None, experiment: str) -> str:
    """Return the experiment's ledger URI. Raises `RefusedInput` for a store that pods cannot reach."""
    root = root or os.environ.get(LEDGER)
    if not root:
        raise RefusedInput(
            "ledger: not given, and a cluster cannot use a store on this machine; name one that its pods reach: "
            f"--ledger 's3://bucket/private/NAMESPACE/oatflow?endpoint=http://host:port', or {LEDGER}"
        )
    if urlsplit(root).scheme != "s3":
        raise RefusedInput(
            f"ledger={root!r}: the pods of a cluster share no folder; name an object store that all of them reach, "
            "s3://bucket/prefix?endpoint=http://host:port"
        )
    # Only looked at: the keys are the pods' own, from their secret.
    S3Address.parse(root, {"AWS_ACCESS_KEY_ID": "unused", "AWS_SECRET_ACCESS_KEY": "unused"})
    for endpoint in parse_qs(urlsplit(root).query).get("endpoint", []):
        if urlsplit(endpoint).hostname in _HERE:
            raise RefusedInput(
                f"ledger={root!r}: in a pod, {urlsplit(endpoint).hostname} is the pod itself; give the store's address "
                "as the cluster knows it, such as http://seaweedfs.kubeflow:9000"
            )
    return experiment_uri(root, experiment)


def refuse_what_is_only_here(settings: ExperimentSettings) -> None:
    """Raise `RefusedInput` for a model or prompts that this machine has and no pod does."""
    if settings.policy.pretrain.startswith("oatflow:"):
        raise RefusedInput(
            f"policy.pretrain={settings.policy.pretrain!r}: `oatflow align` builds it on one machine, and no pod has "
            "it; name a hub model, or a folder in the store, s3://bucket/folder?endpoint=..."
        )
    for name, value in (
        ("policy.pretrain", settings.policy.pretrain),
        ("prompts.prompt_data", settings.prompts.prompt_data),
        ("prompts.eval_data", settings.prompts.eval_data),
    ):
        if value and Path(value).exists():
            raise RefusedInput(
                f"{name}={value!r}: lies on this machine, and no pod has it; copy it to the store and name it there, "
                "s3://bucket/key?endpoint=..."
            )


@contextmanager
def package_pipeline(wanted: Submission) -> Iterator[Package]:
    """Compile the pipeline for these settings, and fill in its form. The file is gone afterwards."""
    build = _choose_build(wanted)
    arguments = form_arguments(wanted.ledger, wanted.settings)
    if arguments["train_image"] == TRAINER:
        arguments["train_image"] = build.image(TRAINER)
    with tempfile.TemporaryDirectory(prefix="oatflow-") as folder:
        file = Path(folder) / "alignment.yaml"
        compile_pipeline(wanted.rounds, file, build)
        yield Package(file, arguments, wanted.service_account)


def _choose_build(wanted: Submission) -> Build:
    """Compile for what the settings ask: their backend, and images with CUDA where a step asks for a GPU."""
    jobs, resources = wanted.settings.jobs, wanted.settings.resources
    gpu = any(int(gpus) for gpus in (resources.sampler_gpus, resources.oracle_gpus, jobs.train_pod_gpus))
    return Build(jobs.train_backend, gpu, wanted.registry, image_pull_secrets=tuple(jobs.image_pull_secrets))


def submit(cluster: Cluster, experiment: str, package: Package, run_name: str | None) -> Run:
    """Start a run of the next rounds now."""
    name = run_name or f"{experiment} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    return cluster.start(cluster.need_experiment(experiment), name, package)


def wait(cluster: Cluster, run_id: str, seconds: float, watch: Callable[[Run], None] = lambda run: None) -> Run:
    """Wait until a run has ended; `watch` gets every answer. Raises `ClusterError` when it takes longer.

    The run itself goes on then.
    """
    heard = time.monotonic()
    deadline, state = heard + seconds, "not seen"
    while True:
        try:
            run = cluster.run(run_id)
            heard, state = time.monotonic(), run.state
        except ClusterRefused as error:
            if error.is_missing:
                raise
            # Such as a token that has expired. Whoever gives the command again starts a second run.
            link = cluster.run_link(run_id)
            raise ClusterRefused(f"{error}. Run {run_id} itself goes on, this only waited for it: {link}") from error
        except ClusterError:
            # A port-forward that broke, or a server that restarts, is nothing to the run.
            if time.monotonic() > heard + PATIENCE_SECONDS:
                raise
        else:
            watch(run)
            if run.has_ended:
                return run
        if time.monotonic() >= deadline:
            raise ClusterError(
                f"run {run_id} is still {state} after {seconds:.0f} s; it goes on: {cluster.run_link(run_id)}. "
                "`oatflow status` says what it waits for"
            )
        time.sleep(min(POLL_SECONDS, max(deadline - time.monotonic(), 0.01)))
