"""The reward model's server on a cluster: who reaches it, when it counts as ready, how many there are, how it ends."""

import argparse

import kubernetes_validate
import pytest
from oatflow.components.images import ORACLE
from oatflow.components.oracles.settings import ScorerSettings
from oatflow.components.reward_server.gateway import HEALTH, METRICS, READY
from oatflow.components.reward_server.serving import TOKEN
from oatflow.components.reward_server.settings import ServerSettings
from oatflow.pipelines.laptop.serve import serve_parser

from .conftest import MANIFESTS
from .policy import pod_specs, problems
from .test_render import KUBERNETES, one, selects

pytestmark = pytest.mark.slow

NAME = "oatflow-reward-server"
VARIANTS = ["cpu", "gpu"]
README = (MANIFESTS / "README.md").read_text()


@pytest.fixture(params=VARIANTS)
def objects(render, request):
    return render(MANIFESTS / "reward-server" / request.param)


@pytest.fixture
def deployment(objects):
    return one(objects, "Deployment", NAME)


@pytest.fixture
def pod(deployment):
    (spec,) = pod_specs(deployment)
    return spec


@pytest.fixture
def container(pod):
    (container,) = pod["containers"]
    return container


def variables(container):
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_every_object_is_valid_and_breaks_no_policy(objects):
    for each in objects:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
        assert problems(each) == []
    kinds = {each["kind"] for each in objects}
    assert kinds == {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "Service",
        "ServiceAccount",
    }  # fmt: skip
    assert not any("namespace" in each["metadata"] for each in objects)


def test_its_command_is_one_that_the_command_line_has(objects, container):
    (config,) = (each["data"] for each in objects if each["kind"] == "ConfigMap")
    words = [config.get(word.strip("$()"), word) for word in container["command"]]
    assert words[0] == "oatflow" and not any("$" in word for word in words)
    parser = argparse.ArgumentParser()
    serve_parser(parser.add_subparsers())
    given = parser.parse_args(words[1:])
    scorer = ScorerSettings.parse({"scorer_model": given.scorer_model, "scorer_dtype": given.scorer_dtype})
    assert "/" in scorer.scorer_model
    assert int(given.port) == container["ports"][0]["containerPort"] == ServerSettings().port


def test_all_that_select_its_pods_do(objects, deployment):
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert selects(deployment["spec"]["selector"], labels)
    assert selects({"matchLabels": one(objects, "Service", NAME)["spec"]["selector"]}, labels)
    assert selects(one(objects, "PodDisruptionBudget", NAME)["spec"]["selector"], labels)
    assert selects(one(objects, "NetworkPolicy", NAME)["spec"]["podSelector"], labels)
    target = one(objects, "HorizontalPodAutoscaler", NAME)["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    # Applied again, it would undo what the autoscaler does.
    assert "replicas" not in deployment["spec"]


def test_the_policies_of_training_do_not_hold_for_it(render, deployment):
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for each in render(MANIFESTS / "overlays/standalone"):
        if each["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
            spec = each["spec"]
            assert not selects(spec.get("podSelector", spec.get("selector")), labels)


def test_the_service_leads_to_its_port_and_the_readme_to_the_service(objects, container):
    (port,) = one(objects, "Service", NAME)["spec"]["ports"]
    assert port["targetPort"] == container["ports"][0]["name"]
    assert f"--remote_url http://{NAME}:{port['port']}" in README


def test_only_steps_of_pipelines_in_the_namespace_reach_it(objects, container):
    spec = one(objects, "NetworkPolicy", NAME)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = spec["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": container["ports"][0]["containerPort"]}]
    # A namespaceSelector beside it would let other namespaces in.
    assert rule["from"] == [{"podSelector": {"matchLabels": {"pipelines.kubeflow.org/v2_component": "true"}}}]


def test_it_reaches_dns_and_https_alone_and_no_service_of_keys(objects):
    egress = one(objects, "NetworkPolicy", NAME)["spec"]["egress"]
    assert all(rule.get("to") and rule.get("ports") for rule in egress)
    assert {port["port"] for rule in egress for port in rule["ports"]} == {53, 5353, 443}
    (https,) = (rule for rule in egress if {"protocol": "TCP", "port": 443} in rule["ports"])
    excepted = {block for each in https["to"] for block in each["ipBlock"]["except"]}
    assert {"169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128"} <= excepted


def test_the_probes_ask_what_the_server_answers_and_wait_for_the_model(deployment, container):
    asked = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert asked == {"startup": READY, "readiness": READY, "liveness": HEALTH}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == METRICS
    assert int(annotations["prometheus.io/port"]) == container["ports"][0]["containerPort"]


def test_there_is_time_to_answer_what_is_under_way(pod, container):
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + 2 * ServerSettings().timeout


def test_the_token_is_in_a_secret_which_must_be_there(container):
    named = variables(container)
    assert named[TOKEN] == {"secretKeyRef": {"name": NAME, "key": TOKEN}}
    assert named["HF_TOKEN"]["secretKeyRef"]["optional"] is True
    assert f"secret generic {NAME} " in README and f"{TOKEN}=" in README


def test_only_its_volumes_are_written_to(pod, container):
    assert {each["mountPath"] for each in container["volumeMounts"]} == {"/tmp", variables(container)["HF_HOME"]}
    assert all(list(volume) == ["name", "emptyDir"] or "emptyDir" in volume for volume in pod["volumes"])
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_variants_differ_in_image_and_gpu(render, variant):
    (spec,) = pod_specs(one(render(MANIFESTS / "reward-server" / variant), "Deployment", NAME))
    (container,) = spec["containers"]
    assert container["image"] == (ORACLE if variant == "gpu" else f"{ORACLE}-cpu")
    assert container["resources"]["limits"].get("nvidia.com/gpu") == ("1" if variant == "gpu" else None)
    threads = variables(container)["OMP_NUM_THREADS"]["resourceFieldRef"]
    assert (threads["containerName"], threads["resource"]) == (container["name"], "limits.cpu")
