"""The script for CI, run as it is with the real kfp command against the API: what it says, and its exit code."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from oatflow.pipelines.alignment.pipeline import compile_pipeline

from .conftest import MANIFESTS

pytestmark = pytest.mark.slow

SCRIPT = MANIFESTS / "examples" / "kfp-run.sh"
GIVEN = ["ledger=s3://bucket/oatflow/demo", "prompt_data=oatflow:reviews", "pretrain=someone/small"]


def load_double():
    path = MANIFESTS.parent / "tests" / "pipelines" / "kfp_api_double.py"
    spec = importlib.util.spec_from_file_location("kfp_api_for_ci", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


double = load_double()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("ci")
    compile_pipeline(1, made / "alignment.yaml")
    return made


@pytest.fixture
def api():
    with double.kfp_api() as served:
        yield served


@pytest.fixture
def run(api, folder):
    """Run the script; returns the exit code, its output and its complaint."""

    def run(*arguments, cwd=folder, **environment):
        where = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "POLL": "1",
            "TIMEOUT": "3", "KFP_ENDPOINT": api.endpoint, "KFP_NAMESPACE": "team-a", "EXPERIMENT": "nightly",
            "RUN_NAME": "tonight",
        } | environment  # fmt: skip
        where = {name: value for name, value in where.items() if value is not None}
        done = subprocess.run(
            [SCRIPT, *GIVEN, *arguments], cwd=cwd, env=where, capture_output=True, text=True, timeout=120
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return run


def test_a_run_that_succeeds_is_followed_to_its_end(api, run):
    api.stages = ("PENDING", "RUNNING", "SUCCEEDED")
    code, said, complaint = run()
    ((run_id, started),) = api.runs.items()
    assert (code, complaint) == (0, [])
    assert said == [f"see {api.endpoint}/#/runs/details/{run_id}", f"run {run_id}: RUNNING", f"run {run_id}: SUCCEEDED"]
    assert started["display_name"] == "tonight"
    assert [each["display_name"] for each in api.experiments.values()] == ["nightly"]


# A run that was terminated ends as FAILED.
@pytest.mark.parametrize("stages", [("RUNNING", "FAILED"), ("RUNNING", "CANCELING", "FAILED")], ids=" ".join)
def test_a_run_that_fails_or_is_terminated_fails_the_job_and_says_where_to_look(api, run, stages):
    api.stages = stages
    code, _, complaint = run()
    (run_id,) = api.runs
    assert code == 1
    assert complaint == [f"kfp-run.sh: run {run_id} ended as FAILED; see {api.endpoint}/#/runs/details/{run_id}"]


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("betta=0.1", "(400) parameter(s) provided are not required by pipeline: betta"),
        ("sampler_gpus=0", "(400) input parameter sampler_gpus requires type STRING, but the parameter value is 0"),
        ("pretrain", "Invalid argument format: 'pretrain'. Expected 'key=value'."),
    ],
)
def test_a_field_that_is_refused_ends_with_the_sentence_that_refuses_it(api, run, field, sentence):
    code, said, complaint = run(field)
    assert (code, said, api.runs) == (2, [], {})
    assert complaint == [f"kfp-run.sh: {api.endpoint} started no run: {sentence}"]


def test_a_host_that_does_not_answer_is_named(api, run):
    code, _, (complaint,) = run(KFP_ENDPOINT="http://127.0.0.1:9")
    assert code == 2 and api.requests == []
    assert complaint.startswith("kfp-run.sh: http://127.0.0.1:9 started no run: ") and "refused" in complaint


def test_who_may_not_start_a_run_reads_what_the_api_says(api, run):
    api.token = "another"
    code, _, complaint = run()
    assert code == 2 and complaint == [f"kfp-run.sh: {api.endpoint} started no run: (401) request not authenticated"]


def test_a_login_page_is_no_run(api, run):
    api.faults.append(double.Fault("GET", ".", 200, "<html>sign in</html>", "text/html", times=100))
    api.faults.append(double.Fault("POST", ".", 200, "<html>sign in</html>", "text/html", times=100))
    code, _, complaint = run()
    assert code == 2 and complaint[-1].startswith(f"kfp-run.sh: {api.endpoint} started no run: ")


@pytest.mark.parametrize("name", ["KFP_ENDPOINT", "KFP_NAMESPACE", "EXPERIMENT", "RUN_NAME"])
def test_what_is_not_given_is_named(api, run, name):
    assert run(**{name: None}) == (2, [], [f"kfp-run.sh: {name} is not set; give it in the environment"])
    assert api.requests == []


def test_a_folder_without_the_compiled_pipeline_is_told_what_writes_it(run, tmp_path):
    assert run(cwd=tmp_path) == (2, [], ["kfp-run.sh: there is no alignment.yaml here; oatflow compile writes it"])


def test_an_api_that_is_away_for_a_moment_does_not_fail_a_run_that_goes_on(api, run):
    api.stages = ("SUCCEEDED",)
    # At the look of `run create` at what it has started, and at the first look after that.
    api.faults.append(double.Fault("GET", r"/runs/", 503, times=2))
    code, said, complaint = run()
    (run_id,) = api.runs
    assert (code, complaint) == (0, [])
    assert said[1:] == [
        f"run {run_id}: not known at the moment: (503) a fault that was ordered", f"run {run_id}: SUCCEEDED",
    ]  # fmt: skip


def test_a_page_of_a_proxy_in_the_place_of_an_answer_is_no_state(api, run):
    api.stages = ("SUCCEEDED",)
    api.faults.append(double.Fault("GET", r"/runs/", 200, "<html>one moment</html>", "text/html", times=2))
    code, said, complaint = run()
    assert (code, complaint) == (0, [])
    assert said[1] == f"run {next(iter(api.runs))}: not known at the moment: the answer names no state"


@pytest.mark.parametrize(("status", "word"), [(404, "not found"), (403, "forbidden")])
def test_a_run_that_may_not_be_looked_at_any_more_is_not_waited_for(api, run, status, word):
    api.faults.append(double.Fault("GET", r"/runs/", status, f'{{"message": "{word}"}}', times=100))
    code, _, complaint = run(TIMEOUT="60")
    (run_id,) = api.runs
    assert code == 1
    assert complaint == [f"kfp-run.sh: run {run_id} cannot be looked at any more: ({status}) {word}"]


def test_the_wait_is_bounded(api, run):
    api.stages = ("RUNNING",) * 99
    code, said, complaint = run(TIMEOUT="1")
    (run_id,) = api.runs
    assert code == 1 and complaint == [f"kfp-run.sh: run {run_id} has not ended within 1 s, and goes on"]
    assert f"run {run_id}: RUNNING" in said
