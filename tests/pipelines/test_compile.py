"""The compiled pipeline: what a cluster would get."""

from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from oatflow.components.errors import SettingsError
from oatflow.pipelines.alignment.pipeline import compile_pipeline

GOLDEN = Path(__file__).parents[1] / "golden" / "alignment-2.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "alignment.yaml"
    compile_pipeline(2, path)
    return path


def tasks(spec):
    """Every task of the pipeline and of its nested pipelines, by name."""
    found = dict(spec["root"]["dag"]["tasks"])
    for component in spec["components"].values():
        found |= component.get("dag", {}).get("tasks", {})
    return found


def test_the_compiled_pipeline_is_the_golden_one_byte_for_byte(compiled):
    # After a change that is meant: oatflow compile --rounds 2 --out tests/golden/alignment-2.yaml
    assert compiled.read_bytes() == GOLDEN.read_bytes()


def test_compiling_twice_gives_the_same_bytes(compiled, tmp_path):
    compile_pipeline(2, tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == compiled.read_bytes()


def test_it_parses_strictly_as_a_pipeline_spec(compiled):
    spec = yaml.safe_load(compiled.read_text())
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())


def test_no_task_is_ever_cached(compiled):
    found = tasks(yaml.safe_load(compiled.read_text()))
    assert {"open-round", "sample", "label", "train", "evaluate", "close-round", "round", "round-2"} <= set(found)
    for name, task in found.items():
        if not name.startswith("condition"):
            assert not task.get("cachingOptions", {}).get("enableCache"), name


def test_every_door_has_an_image_with_a_version_and_installs_nothing(compiled):
    executors = yaml.safe_load(compiled.read_text())["deploymentSpec"]["executors"]
    for name, executor in executors.items():
        image = executor["container"]["image"]
        assert ":" in image and not image.endswith(":latest"), name
        assert "pip install" not in "".join(executor["container"]["command"]), name


def test_the_graph_is_the_way_the_data_goes(compiled):
    spec = yaml.safe_load(compiled.read_text())
    inner = next(c["dag"]["tasks"] for n, c in spec["components"].items() if "condition" in n)
    comes_from = {
        (source["taskOutputArtifact"]["producerTask"], name)
        for name, task in inner.items()
        for source in task.get("inputs", {}).get("artifacts", {}).values()
    }
    assert comes_from == {
        ("sample", "label"), ("label", "train"), ("train", "evaluate"), ("train", "close-round"),
        ("evaluate", "close-round"),
    }  # fmt: skip


@pytest.mark.parametrize("rounds", [0, 11])
def test_a_number_of_rounds_that_cannot_be_unrolled_is_refused(rounds, tmp_path):
    with pytest.raises(SettingsError, match=f"rounds={rounds}"):
        compile_pipeline(rounds, tmp_path / "p.yaml")
