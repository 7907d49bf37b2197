"""What a run costs a cluster: its pods, and the size of the object that Kubernetes keeps of it."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from oatflow.components.errors import SettingsError
from oatflow.pipelines.alignment import workflow_size as sizes
from oatflow.pipelines.alignment.build import Build
from oatflow.pipelines.alignment.unrolling import unroll_rounds
from oatflow.pipelines.alignment.workflow_size import ARGO_LIMIT, build_status, count_pods, workflow_size

REAL_CLUSTER = Path(__file__).parents[1] / "real_cluster"
REFUSED = Path(__file__).parent / "refused-by-kfp"
BUILDS = [Build(), Build(train_backend="local", gpu=False, retries=0, image_pull_secrets=("pull",))]


def read(path):
    spec, platform = yaml.load_all(Path(path).read_text(), yaml.CSafeLoader)
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.mark.parametrize("build", BUILDS, ids=["cluster", "one"])
def test_a_run_of_one_round_has_17_pods_of_which_10_are_drivers(compiled, build):
    pods = count_pods(compiled(1, build).spec)
    assert (pods.steps, pods.drivers, pods.all) == (7, 10, 17)


def test_each_round_of_a_longer_run_adds_17_pods_and_the_driver_of_its_own_box(compiled):
    pods = [count_pods(compiled(rounds).spec) for rounds in (2, 3)]
    assert [(each.steps, each.drivers) for each in pods] == [(14, 1 + 2 * 10), (21, 1 + 3 * 10)]


def test_a_round_of_before_had_19_pods_and_20_with_its_importer_in_a_dag():
    pods = count_pods(read(REFUSED / "alignment-9449262-one-round.yaml")[0])
    assert (pods.steps, pods.drivers) == (8, 11)


def test_the_status_has_the_nodes_that_a_cluster_reported_without_those_that_are_gone(compiled):
    """The recorded run had its importer in a DAG of its own, and the box `round` around its only round."""
    package = compiled(1)
    recorded = json.loads((REAL_CLUSTER / "run-succeeded.json").read_text())["run_details"]["task_details"]
    gone = ("importer", "register-policy", "round")
    expected = [node["display_name"].replace("-27zqr", "-00000") for node in recorded
                if node["display_name"].split("(")[0].removesuffix("-driver") not in gone]  # fmt: skip
    assert sorted(node["displayName"] for node in build_status(package.spec, package.kubernetes).values()) == sorted(
        expected
    )


# Sizes measured on a cluster, with KFP 2.17, before the run began.


def test_the_estimate_is_what_was_measured_for_ten_rounds_that_share_one_component():
    spec, kubernetes = read(REFUSED / "alignment-9449262-two-rounds.yaml")
    tasks = spec["root"]["dag"]["tasks"]
    for number in range(3, 11):
        tasks[f"round-{number}"] = copy.deepcopy(tasks["round-2"])
    assert workflow_size(spec, kubernetes).specification == pytest.approx(324_000, rel=0.05)


def test_the_estimate_is_what_was_measured_for_ten_rounds_of_their_own():
    spec, kubernetes = read(REFUSED / "alignment-9449262-two-rounds.yaml")
    assert workflow_size(unroll_rounds(spec, 10), kubernetes).specification == pytest.approx(803_000, rel=0.05)


@pytest.mark.parametrize("build", BUILDS, ids=["cluster", "one"])
def test_ten_rounds_fit_into_one_run(compiled, build):
    package = compiled(10, build)
    size = workflow_size(package.spec, package.kubernetes)
    assert size.fits and size.smallest < 0.9 * ARGO_LIMIT
    assert size.specification < 620_000


def test_a_run_that_kfp_can_retry_has_less_than_etcd_takes(compiled):
    package = compiled(2)
    size = workflow_size(package.spec, package.kubernetes)
    assert size.specification + size.status < 1.5 * 1024 * 1024


@pytest.mark.slow
def test_more_rounds_than_fit_are_refused_in_one_line_that_says_how_many_do(compile_apart, tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "ARGO_LIMIT", 700_000)
    with pytest.raises(
        SettingsError, match=r"^rounds=10: one run takes at most [3-8], as .*; compile [3-8] and "
    ) as no:
        compile_apart(10, tmp_path / "pipeline.yaml")
    most = int(str(no.value).split("at most ")[1][0])
    compile_apart(most, tmp_path / "pipeline.yaml")
    with pytest.raises(SettingsError, match=f"rounds={most + 1}: one run takes at most {most},"):
        compile_apart(most + 1, tmp_path / "pipeline.yaml")
