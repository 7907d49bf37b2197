"""What the README tells an admin to type exists."""

import re

from oatflow.components.jobs.job import TrainingJob
from oatflow.components.jobs.pod_template import job_labels as trainer_labels
from oatflow.pipelines.alignment.config import all_settings

from .conftest import MANIFESTS

README = (MANIFESTS / "README.md").read_text()
# Flags of submit, compile, doctor, status and schedule that are not settings.
FLAGS = {
    "host", "namespace", "experiment", "rounds", "preset", "ledger", "registry", "image_pull_secret", "service_account",
    "no_pods", "timeout", "run", "wait", "now",
}  # fmt: skip
SETTING = r"(?:train|sampler|oracle)_[a-z_]+|image_pull_secrets|lease_seconds|max_queries|s3_secret|keys_secret"


def named(pattern):
    return set(re.findall(pattern, README))


def test_the_settings_it_names_are_settings():
    known = {setting.name for setting in all_settings()}
    commands = re.findall(r"oatflow submit.*?```|`--.*?`", README, re.DOTALL)
    flags = {flag for command in commands for flag in re.findall(r"--([a-z0-9_]+)", command)}
    assert flags - FLAGS <= known and "train_service_account" in flags
    assert named(rf"\b({SETTING})\b") <= known


def test_the_paths_it_names_are_there():
    folders = "base|components|overlays|examples|pod-security"
    paths = named(r"manifests/[a-z0-9/.-]*[a-z0-9]")
    paths |= {f"manifests/{path}" for path in named(rf"(?<![\w/])(?:{folders})/[\w/.-]*\w")}
    assert len(paths) > 8
    assert {path for path in paths if not (MANIFESTS.parent / path).exists()} == set()


def test_the_labels_it_names_are_those_of_the_training_pods():
    labels = trainer_labels(TrainingJob("0123456789abcdef", 3, 5, "s3://bucket/a", "module", (), 2, 60.0))
    assert named(r"oatflow\.dev/(?!pool)[a-z]+") == {label for label in labels if label.startswith("oatflow.dev/")}
    for label in ("app.kubernetes.io/name", "app.kubernetes.io/component"):
        assert f"{label}={labels[label]}" in README
