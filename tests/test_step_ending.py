"""The end of a failed step's log, with every component run as Kubeflow Pipelines runs it: a process of its own."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp import compiler
from oatflow.components.errors import EngineError, SettingsError, TrainingFailed
from oatflow.components.evaluation.component import evaluate
from oatflow.components.labeling.component import label
from oatflow.components.policy.component import train
from oatflow.components.reward_model.component import fit_reward_model
from oatflow.components.rounds.component import close_round, open_round
from oatflow.components.rounds.opening import open_round as open_a_round
from oatflow.components.sampling.component import sample
from oatflow.components.step_ending import MOST_BYTES, describe_failure, explain_failure
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.alignment.form import form_arguments

STEPS = [open_round, sample, label, train, fit_reward_model, evaluate, close_round]
SECRET = "a-secret-that-no-log-may-hold"
# What a step's process runs first: there is a bug in how it opens the ledger, and its message quotes a key.
BUG = """
import os
from oatflow.components.ledger.ledger import Ledger
def broken(uri):
    return {}[os.environ["AWS_SECRET_ACCESS_KEY"]]
Ledger.open = broken
"""


class Ended:
    """A step that has ended: its exit code, what it wrote, and what Kubernetes would find in its termination log."""

    def __init__(self, process: subprocess.CompletedProcess, log: Path):
        self.code, self.text = process.returncode, process.stdout + process.stderr
        self.last_line = process.stderr.splitlines()[-1]
        self.message = log.read_text()


@pytest.fixture
def run_step(tmp_path):
    """Return what runs a compiled component with these parameters, in a pod's environment."""

    def run(component, patch="", **parameters) -> Ended:
        compiler.Compiler().compile(component, str(tmp_path / "component.yaml"))
        spec = next(yaml.safe_load_all((tmp_path / "component.yaml").read_text()))
        (container,) = (one["container"] for one in spec["deploymentSpec"]["executors"].values())
        (definition,) = spec["components"].values()
        inputs, outputs = definition.get("inputDefinitions", {}), definition.get("outputDefinitions", {})
        known = form_arguments("file:///nowhere", gather("scripted", None, {})) | {"round": 0, "run": "this-run"}
        values = {name: (known | parameters)[name] for name in inputs.get("parameters", {})}

        def artifacts(definitions):
            return {
                name: {"artifacts": [{"name": name, "uri": f"{tmp_path}/{name}", "type": one["artifactType"]}]}
                for name, one in definitions.get("artifacts", {}).items()
            }

        executor_input = {
            "inputs": {"parameterValues": values, "artifacts": artifacts(inputs)},
            "outputs": {"artifacts": artifacts(outputs), "outputFile": str(tmp_path / "outputs.json")},
        }
        for name in inputs.get("artifacts", {}):
            (tmp_path / name).write_text("")
        log = tmp_path / "termination-log"
        log.touch()
        (tmp_path / "sitecustomize.py").write_text(patch)
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(tmp_path),
            "OATFLOW_TERMINATION_LOG": str(log), "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ACCESS_KEY_ID": "an-access-key",
            "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        command = [*container["command"], *container["args"]]
        command = [json.dumps(executor_input) if part == "{{$}}" else part for part in command]
        return Ended(subprocess.run(command, env=environment, capture_output=True, text=True), log)

    return run


@pytest.mark.parametrize(
    "component",
    [label, *(pytest.param(step, marks=pytest.mark.slow) for step in STEPS if step is not label)],
    ids=lambda component: component.name,
)
def test_every_step_ends_with_one_sentence_where_the_cause_is_known(run_step, component):
    ended = run_step(component, ledger="ftp://somewhere")
    sentence = "ledger='ftp://somewhere': a store's URI starts with s3:// or file://"
    assert ended.last_line == f"oatflow: {sentence}" and ended.message == sentence
    assert ended.code == 2 and "Traceback" not in ended.text and SECRET not in ended.text


@pytest.mark.slow
def test_a_wrong_model_name_is_named_with_what_to_give_instead(run_step, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "hello"}\n')
    data = {
        "prompt_data": str(prompts),
        "eval_data": str(prompts),
        "more_settings": {"policy": {"trainer": "deepspeed"}},
    }
    ended = run_step(open_round, ledger=f"file://{tmp_path}/ledger", pretrain="Qwen/No-Such-Model", **data)
    assert ended.last_line.startswith(
        "oatflow: policy.pretrain='Qwen/No-Such-Model': no folder of that name, and the hub"
    )
    assert "the name of a model on the hub" in ended.message
    assert ended.code == 2 and "Traceback" not in ended.text


@pytest.mark.slow
def test_a_store_that_is_not_there_is_named_with_its_address(run_step):
    ended = run_step(sample, ledger="s3://bucket/x?endpoint=http://store.invalid:9000")
    assert ended.last_line.startswith("oatflow: ledger=s3://bucket/x") and "http://store.invalid:9000" in ended.message
    assert ended.code == 2 and "Traceback" not in ended.text and SECRET not in ended.text


@pytest.mark.slow
def test_a_claim_that_another_run_holds_is_named_with_that_run(run_step, tmp_path):
    uri = f"file://{tmp_path}/ledger"
    settings = gather("scripted", None, {})
    open_a_round(uri, settings.model_dump(mode="json"), "another-run")
    ended = run_step(open_round, **form_arguments(uri, settings))
    assert ended.last_line.startswith("oatflow: round 0 is being worked on by run 'another-run'")
    assert ended.code == 3 and "Traceback" not in ended.text


@pytest.mark.slow
@pytest.mark.parametrize("component", [train, close_round], ids=lambda component: component.name)
def test_a_bug_keeps_its_traceback_and_says_that_it_is_one(run_step, component):
    ended = run_step(component, patch=BUG)
    sentence = "this is a bug in oatflow, please report it with the traceback above: KeyError: '$AWS_SECRET_ACCESS_KEY'"
    assert ended.last_line == f"oatflow: {sentence}" and ended.message == sentence
    assert ended.code == 1 and "in broken" in ended.text and SECRET not in ended.text


class OutOfMemoryError(RuntimeError):
    """As torch's, which is known by its name."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "out of memory (CUDA out of memory): buy more",
        ),
        (MemoryError(), "out of memory (MemoryError): buy more"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "no space left on the disk for /tmp/x: free some"),
        (EngineError("vLLM could not load /m: no\nKV cache"), "vLLM could not load /m: no KV cache"),
        (SettingsError("a=1: too small\nb=2: too large"), "a=1: too small b=2: too large"),
        (RuntimeError("odd"), "this is a bug in oatflow, please report it with the traceback above: RuntimeError: odd"),
        # A peer that is gone is a cause only where there are peers.
        (RuntimeError("Connection closed by peer"), "this is a bug in oatflow"),
    ],
)
def test_what_a_failure_is_said_to_be(error, words):
    sentence, _ = describe_failure(error, "buy more")
    assert sentence.startswith(words) and "\n" not in sentence


def test_the_last_lines_of_a_job_come_before_the_sentence(capsys, tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("OATFLOW_TERMINATION_LOG", str(log))
    with pytest.raises(SystemExit), explain_failure(""):
        raise TrainingFailed("job failed: no.\nLast lines of rank 0:\nnearly there")
    assert capsys.readouterr().err == "Last lines of rank 0:\nnearly there\noatflow: job failed: no.\n"
    assert log.read_text() == "job failed: no."


def test_a_workers_loss_of_its_peer_does_not_replace_the_cause_that_another_worker_wrote(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("OATFLOW_TERMINATION_LOG", str(log))
    for error in (SettingsError("the cause"), RuntimeError("[gloo] Connection closed by peer"), ZeroDivisionError()):
        with pytest.raises(SystemExit), explain_failure("", peers=True):
            raise error
    assert log.read_text() == "the cause"


def test_a_message_is_cut_where_kubernetes_would_cut_it_and_no_file_is_made_outside_of_a_pod(tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("OATFLOW_TERMINATION_LOG", str(log))
    for _ in range(2):
        with pytest.raises(SystemExit) as ended, explain_failure(""):
            raise SettingsError("ä" * MOST_BYTES)
        assert ended.value.code == 2
        if not log.exists():
            log.touch()
    assert log.read_bytes() == "ä".encode() * (MOST_BYTES // 2)


def test_a_name_with_bytes_that_are_no_utf8_does_not_hide_the_cause(tmp_path, monkeypatch, capsys):
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("OATFLOW_TERMINATION_LOG", str(log))
    with pytest.raises(SystemExit) as ended, explain_failure(""):
        raise SettingsError("folder='/models/caf\udce9': there is no such folder")
    assert ended.value.code == 2
    assert log.read_text() == "folder='/models/caf\\udce9': there is no such folder"
    assert "there is no such folder\n" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_any_more_does_not_hide_the_cause(monkeypatch, capsys):
    def fail():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with monkeypatch.context() as broken:
        broken.setattr("sys.stdout.flush", fail)
        with pytest.raises(SystemExit) as ended, explain_failure(""):
            raise SettingsError("a=1: too small")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "oatflow: a=1: too small\n"


def test_a_secret_stays_hidden_where_it_has_lines_or_another_begins_like_it(monkeypatch, capsys):
    key = "-----BEGIN KEY-----\nline-one\nline-two"
    for name, value in {"FIRST_TOKEN": "abcdef", "SECOND_TOKEN": "abcdef-and-more", "A_PRIVATE_KEY": key}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit), explain_failure(""):
        raise SettingsError(f"url=http://x/abcdef-and-more: refused, as is {key}")
    assert capsys.readouterr().err == "oatflow: url=http://x/$SECOND_TOKEN: refused, as is $A_PRIVATE_KEY\n"
