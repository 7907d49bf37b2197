"""The compiled pipeline in real containers, held as a cluster would hold its pods."""

import io
import os

import pyarrow.parquet as pq
import pytest
from kfp import components, local
from kfp.local import config
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.store.store import open_store
from oatflow.components.store.transfer import upload_folder
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.alignment.form import form_arguments
from oatflow.pipelines.alignment.pipeline import compile_pipeline
from oatflow.pipelines.laptop.align import THIS_MACHINE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SETTINGS = {"rollout_batch_size": "6", "max_queries": "12", "max_eval": "4", "generate_max_length": "12",
            "eval_generate_max_length": "12", "train_batch_size": "4", "train_batch_size_per_device": "2",
            "train_workers": "2", "reward": "length", "cpu_kv_cache_gib": "0.2"}  # fmt: skip
# What the restricted Pod Security Standard asks for, and a root file system that nobody can write to.
AS_A_POD = {
    "user": "10001:10001",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": "size=4g"},
    "shm_size": "1g",
    "network_mode": "host",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Return KFP's folder for artifacts, the one place that the containers share with this machine."""
    folder = tmp_path_factory.mktemp("outputs")
    folder.chmod(0o777)
    return folder


@pytest.fixture(scope="module")
def experiment(images, s3_store_uri, make_model, outputs, tmp_path_factory):
    """Run two rounds; return the experiment's ledger."""
    uri, model = s3_store_uri("containers"), s3_store_uri("model")
    upload_folder(open_store(model), make_model(tmp_path_factory.mktemp("model"), 1, "bfloat16"), "")
    settings = gather("reviews", None, {**SETTINGS, "pretrain": model})
    package = tmp_path_factory.mktemp("compiled") / "alignment.yaml"
    compile_pipeline(2, package, THIS_MACHINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config.LocalExecutionConfig, "instance", None)
        keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        runner = local.DockerRunner(environment=keys, **AS_A_POD)
        local.init(runner=runner, pipeline_root=str(outputs), raise_on_error=True)
        components.load_component_from_file(str(package))(**form_arguments(uri, settings))
    return Ledger.open(uri)


def test_two_rounds_run_in_the_images_and_every_object_is_intact(experiment):
    assert experiment.read_head().round == 1
    assert len(list(experiment.verify_objects())) > 30


def test_the_steps_leave_their_windows_and_the_report(experiment, outputs):
    # The local runner keeps what the last task of a name has written.
    (report,) = (file for file in outputs.rglob("report") if file.is_file())
    (duels,) = (file for file in outputs.rglob("duels") if file.is_file())
    assert "<html" in report.read_text()
    assert pq.read_table(duels).equals(
        pq.read_table(io.BytesIO(experiment.read_output("sampling", "duels.parquet", 1)))
    )


def test_no_key_of_the_store_is_left_in_what_the_steps_say(experiment, outputs):
    key = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [file for file in outputs.rglob("*") if file.is_file() and key in file.read_bytes()]
