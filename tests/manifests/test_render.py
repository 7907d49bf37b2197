"""What the cluster gets: every overlay rendered, and every object checked."""

import os
import re
import shutil

import kubernetes_validate
import pytest
import yaml
from oatflow.components.images import CONTROL, ORACLE
from oatflow.components.jobs.job import TrainingJob
from oatflow.components.jobs.pod_template import job_labels
from oatflow.components.jobs.settings import JobSettings
from oatflow.components.store.s3_address import S3Address
from oatflow.pipelines.alignment.round import PLACE, PLACE_VARIABLES, S3_KEYS

from .conftest import MANIFESTS
from .policy import pod_specs, problems

pytestmark = pytest.mark.slow

KUBERNETES = "1.33"
OVERLAYS = ["standalone", "profile", "minio", "aws", "gpu-pool"]
FOLDERS = [*(f"overlays/{name}" for name in OVERLAYS), "examples/doctor"]
COMPONENTS = ["aws", "aws-role", "images", "minio", "profile", "quota", "seaweedfs"]
# Custom resources, which no schema of Kubernetes' own covers: exactly these go unvalidated, in exactly this overlay.
CUSTOM = {"overlays/gpu-pool": {"ClusterQueue", "LocalQueue", "ResourceFlavor"}}
CLUSTER_WIDE = {"ClusterQueue", "PriorityClass", "ResourceFlavor"}
# What the launcher asks the Kubernetes API for, and nothing else.
LAUNCHER = {
    ("kubeflow.org", "pytorchjobs"): {"create", "get", "list", "watch", "patch", "delete"},
    ("trainer.kubeflow.org", "trainjobs"): {"create", "get", "list", "watch", "patch", "delete"},
    ("", "pods"): {"list", "watch"},
    ("", "pods/log"): {"get"},
}


def trainer_labels():
    """The labels that the launcher gives to a training pod."""
    return job_labels(TrainingJob("0123456789abcdef", 3, 5, "s3://bucket/a", "module", (), 2, 60.0))


def one(objects, kind, name):
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def config(objects):
    return one(objects, "ConfigMap", PLACE)["data"]


def ledger(objects):
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": config(objects)["AWS_REGION"]}
    return S3Address.parse(config(objects)["OATFLOW_LEDGER"], keys)


def selects(selector, pod):
    """Kubernetes' label selectors, as far as ours go."""
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return all(pod.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        pod.get(each["key"]) in each["values"] for each in expressions
    )


def rules(objects, direction, pod):
    """The rules of all policies that hold for a pod, which add up."""
    policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]
    holding = [each for each in policies if selects(each["podSelector"], pod) and direction in each["policyTypes"]]
    assert holding, f"no policy limits {direction}"
    return [rule for each in holding for rule in each.get(direction.lower(), [])]


def test_all_overlays_and_components_are_tested():
    assert sorted(OVERLAYS) == sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
    assert sorted(COMPONENTS) == sorted(path.name for path in (MANIFESTS / "components").iterdir())


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_valid_for_kubernetes_to_the_last_field(render, folder):
    unknown = set()
    for each in render(MANIFESTS / folder):
        try:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.add(each["kind"])
    assert unknown == CUSTOM.get(folder, set())


def test_a_field_that_kubernetes_does_not_know_is_refused(render):
    job = one(render(MANIFESTS / "examples/doctor"), "Job", "oatflow-doctor")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job | {"spec": job["spec"] | {"backofLimit": 1}}, KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_breaks_the_policy(render, folder):
    assert [problem for each in render(MANIFESTS / folder) for problem in problems(each)] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_secret_is_shipped(render, folder):
    assert "Secret" not in {each["kind"] for each in render(MANIFESTS / folder)}


@pytest.mark.parametrize("name", OVERLAYS)
def test_all_that_can_be_is_in_one_namespace(render, name):
    objects = render(MANIFESTS / "overlays" / name)
    here = one(objects, "RoleBinding", "oatflow-launcher")["metadata"]["namespace"]
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] not in CLUSTER_WIDE} == {here}
    assert not any("namespace" in each["metadata"] for each in objects if each["kind"] in CLUSTER_WIDE)
    assert "replaced-by-the-overlay" not in yaml.safe_dump_all(objects)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_launcher_may_do_what_it_does_and_nothing_else(render, name):
    granted: dict[tuple[str, str], set[str]] = {}
    roles = [each for each in render(MANIFESTS / "overlays" / name) if each["kind"] in ("Role", "ClusterRole")]
    for rule in (rule for role in roles for rule in role["rules"]):
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                granted.setdefault((group, resource), set()).update(rule["verbs"])
    assert granted == LAUNCHER


@pytest.mark.parametrize(
    ("name", "account"),
    [(name, "default-editor" if name in ("profile", "gpu-pool") else "pipeline-runner") for name in OVERLAYS],
)
def test_the_role_is_given_to_who_the_steps_are(render, name, account):
    binding = one(render(MANIFESTS / "overlays" / name), "RoleBinding", "oatflow-launcher")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account, "namespace": binding["metadata"]["namespace"]}
    ]
    assert binding["roleRef"]["name"] == "oatflow-launcher"


@pytest.mark.parametrize("name", OVERLAYS)
def test_training_pods_are_nobody_to_the_kubernetes_api(render, name):
    objects = render(MANIFESTS / "overlays" / name)
    assert one(objects, "ServiceAccount", "oatflow-trainer")["automountServiceAccountToken"] is False
    bound = [subject["name"] for each in objects if each["kind"] == "RoleBinding" for subject in each["subjects"]]
    assert "oatflow-trainer" not in bound


@pytest.mark.parametrize("name", OVERLAYS)
def test_training_pods_hear_each_other_on_every_port_and_nobody_else(render, name):
    trainer = trainer_labels()
    (rule,) = rules(render(MANIFESTS / "overlays" / name), "Ingress", trainer)
    (source,) = rule["from"]
    # A namespaceSelector beside it would let other namespaces in.
    assert set(source) == {"podSelector"} and "ports" not in rule
    assert selects(source["podSelector"], trainer)
    assert not selects(source["podSelector"], {"app.kubernetes.io/name": "oatflow"})
    speaking = [rule for rule in rules(render(MANIFESTS / "overlays" / name), "Egress", trainer) if "ports" not in rule]
    assert [rule["to"] for rule in speaking] == [rule["from"]]


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("component", ["trainer", "doctor"])
def test_training_pods_and_the_doctor_reach_dns_https_and_the_store_alone(render, name, component):
    objects = render(MANIFESTS / "overlays" / name)
    pod = trainer_labels() | {"app.kubernetes.io/component": component}
    open_ = [rule for rule in rules(objects, "Egress", pod) if "ports" in rule]
    ports = {port["port"] for rule in open_ for port in rule["ports"]}
    # The port of the pods behind the store's service, which is what a policy sees.
    behind = {"seaweedfs.kubeflow:9000": {8333}, "minio.minio:9000": {9000}, "s3.amazonaws.com": set()}
    assert ports == {53, 5353, 443} | behind[ledger(objects).host]
    # Only HTTPS is open to everywhere.
    assert [rule["ports"] for rule in open_ if "to" not in rule] == [[{"protocol": "TCP", "port": 443}]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_training_pod_is_evicted_however_the_job_counts_its_scale(render, name):
    budget = one(render(MANIFESTS / "overlays" / name), "PodDisruptionBudget", "oatflow-trainer")["spec"]
    assert selects(budget["selector"], trainer_labels())
    assert "maxUnavailable" not in budget and isinstance(budget["minAvailable"], int)
    assert budget["minAvailable"] > 10_000


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_config_names_a_ledger_and_holds_what_the_steps_read(render, name):
    objects = render(MANIFESTS / "overlays" / name)
    assert set(config(objects)) <= {*PLACE_VARIABLES, "OATFLOW_LEDGER"}
    assert ledger(objects).bucket and ledger(objects).prefix


@pytest.mark.parametrize("name", ["profile", "gpu-pool"])
def test_a_profile_keeps_its_ledgers_where_it_may_write(render, name):
    objects = render(MANIFESTS / "overlays" / name)
    namespace = one(objects, "RoleBinding", "oatflow-launcher")["metadata"]["namespace"]
    assert ledger(objects).prefix.startswith(f"private/{namespace}/")


def test_the_gpu_pool_has_a_queue_that_this_namespace_may_use_and_a_larger_quota(render, tmp_path):
    objects = render(MANIFESTS / "overlays/gpu-pool")
    queue, pool = one(objects, "LocalQueue", "oatflow"), one(objects, "ClusterQueue", "oatflow")
    assert queue["spec"]["clusterQueue"] == pool["metadata"]["name"]
    assert pool["spec"]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": queue["metadata"]["namespace"]
    }
    flavors = {flavor["name"] for group in pool["spec"]["resourceGroups"] for flavor in group["flavors"]}
    assert flavors == {each["metadata"]["name"] for each in objects if each["kind"] == "ResourceFlavor"}
    quota = one(objects, "ResourceQuota", "oatflow")["spec"]["hard"]
    small = one(with_components(render, tmp_path, "quota"), "ResourceQuota", "oatflow")["spec"]["hard"]
    assert set(quota) == set(small) and int(quota["requests.nvidia.com/gpu"]) > int(small["requests.nvidia.com/gpu"])
    assert not any(each["kind"] == "ResourceQuota" for each in render(MANIFESTS / "overlays/standalone"))


def test_a_role_of_aws_is_an_annotation_that_an_overlay_may_add(render, tmp_path):
    account = one(with_components(render, tmp_path, "aws", "aws-role"), "ServiceAccount", "oatflow-trainer")
    assert set(account["metadata"]["annotations"]) == {"eks.amazonaws.com/role-arn"}


@pytest.mark.parametrize("level", ["warn", "enforce"])
def test_a_namespace_takes_the_labels_of_the_restricted_standard(level):
    patch = yaml.safe_load((MANIFESTS / "pod-security" / f"{level}.yaml").read_text())
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", **patch["metadata"]}}
    kubernetes_validate.validate(namespace, KUBERNETES, strict=True)
    assert patch["metadata"]["labels"][f"pod-security.kubernetes.io/{level}"] == "restricted"


def test_the_doctor_gets_the_config_and_the_keys_that_training_gets(render):
    (pod,) = pod_specs(one(render(MANIFESTS / "examples/doctor"), "Job", "oatflow-doctor"))
    (doctor,) = pod["containers"]
    sources = {each["name"]: each["valueFrom"] for each in doctor["env"] if "valueFrom" in each}
    assert sources["OATFLOW_LEDGER"]["configMapKeyRef"]["name"] == PLACE
    secrets = {name: source["secretKeyRef"] for name, source in sources.items() if "secretKeyRef" in source}
    default = JobSettings.model_fields["s3_secret"].default
    assert secrets == {variable: {"name": default, "key": key} for key, variable in S3_KEYS.items()}
    assert doctor["command"][:2] == ["oatflow", "doctor"] and "$(OATFLOW_LEDGER)" in doctor["command"]


IMAGES = MANIFESTS / "components/images/kustomization.yaml"
WITH_IMAGES = ["examples/doctor", "reward-server/cpu", "reward-server/gpu"]


def images(objects):
    return {container["image"] for each in objects for pod in pod_specs(each) for container in pod["containers"]}


@pytest.mark.parametrize(
    ("folder", "image"), list(zip(WITH_IMAGES, [CONTROL, f"{ORACLE}-cpu", ORACLE], strict=True)), ids=WITH_IMAGES
)
def test_an_image_is_the_one_of_this_version_that_the_pipeline_runs(render, folder, image):
    assert images(render(MANIFESTS / folder)) == {image}


def test_a_registry_and_a_tag_of_ones_own_are_written_into_one_file(render, tmp_path):
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    place = tmp_path / "manifests" / IMAGES.relative_to(MANIFESTS)
    text = place.read_text().replace("ghcr.io/oatflow", "registry.example:5000/ml").replace("0.1.0", "mine")
    place.write_text(text)
    found = [images(render(tmp_path / "manifests" / folder)) for folder in WITH_IMAGES]
    assert found == [
        {"registry.example:5000/ml/control:mine"},
        {"registry.example:5000/ml/oracle:mine-cpu"},
        {"registry.example:5000/ml/oracle:mine"},
    ]


def test_no_other_manifest_names_a_registry_or_a_tag_of_ours():
    named = {path for path in MANIFESTS.rglob("*.yaml") if re.search(r"ghcr\.io/oatflow|\b0\.1\.0\b", path.read_text())}
    assert named == {IMAGES}


def with_components(render, folder, *names):
    """Render the base with some components alone."""
    path = {name: os.path.relpath(MANIFESTS / name, folder) for name in ("base", "components")}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "somewhere",
        "resources": [path["base"]], "components": [f"{path['components']}/{name}" for name in names],
    }  # fmt: skip
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)
