"""The double of Kubeflow Pipelines answers as the real server did."""

import json
import urllib.error
import urllib.request

import pytest

from .kfp_api_double import kfp_api
from .recorded_runs import NOT_YET, recorded

SPEC = {
    "pipelineInfo": {"name": "p"}, "sdkVersion": "kfp-2.17.0", "schemaVersion": "2.1.0",
    "root": {"inputDefinitions": {"parameters": {"beta": {"parameterType": "NUMBER_DOUBLE", "isOptional": True}}}},
}  # fmt: skip


@pytest.fixture
def api():
    with kfp_api(multi_user=False) as served:
        yield served


@pytest.fixture
def ask(api):
    def send(method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{api.endpoint}/apis/v2beta1{path}", data, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return send


@pytest.fixture
def start(ask):
    experiment = ask("POST", "/experiments", {"display_name": "kinder"})[1]["experiment_id"]

    def send(**parameters):
        body = {"experiment_id": experiment, "display_name": "r", "pipeline_spec": SPEC,
                "runtime_config": {"parameters": parameters}}  # fmt: skip
        return ask("POST", "/runs", body)

    return send


def test_a_run_that_is_not_there(ask):
    real = recorded("run-not-there")
    assert ask("GET", "/runs/00000000-0000-0000-0000-000000000000") == (real["status"], real["body"])


def test_a_parameter_that_the_pipeline_does_not_have(start):
    status, body = start(betta=0.1)
    assert status == 400 and "parameter(s) provided are not required by pipeline: betta" in body["message"]


def test_a_run_that_has_not_ended_has_the_epoch_as_its_end(start):
    run = start(beta=0.1)[1]
    assert run["finished_at"] == recorded("run-running")["finished_at"] == NOT_YET
    assert {"state_history", "created_at", "run_id", "state", "storage_state"} <= recorded("run-running").keys()
    assert run["state_history"][0]["state"] == recorded("run-running")["state_history"][0]["state"]


def test_nodes_come_in_no_order(api, ask, start):
    run = recorded("run-succeeded")
    api.put_run(start()[1]["experiment_id"], run)
    names = [task["display_name"] for task in run["run_details"]["task_details"]]
    answers = [
        [task["display_name"] for task in ask("GET", f"/runs/{run['run_id']}")[1]["run_details"]["task_details"]]
        for _ in range(2)
    ]
    assert answers[0] != answers[1] and all(sorted(answer) == sorted(names) for answer in answers)
