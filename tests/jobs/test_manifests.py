"""What is asked of a cluster: manifests against the schemas of both kinds, over whatever the settings may be."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from oatflow.components.errors import SettingsError
from oatflow.components.jobs import pod_template
from oatflow.components.jobs.job import TrainingJob
from oatflow.components.jobs.registry import KINDS
from oatflow.components.jobs.settings import JobSettings

BACKENDS = ["pytorchjob", "trainjob"]
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "kept-secret-1", "AWS_ACCESS_KEY_ID": "kept-secret-2", "HF_TOKEN": "kept-secret-3",
    "WANDB_API_KEY": "kept-secret-4", "OPENAI_API_KEY": "kept-secret-5", "AWS_SESSION_TOKEN": "kept-secret-6",
}  # fmt: skip


def a_job(workers=1, **changes):
    fields = {
        "experiment": "0123456789abcdef" * 4, "round": 7, "token": 12, "ledger": "s3://bucket/name",
        "module": "oatflow.components.policy.train", "arguments": ("s3://bucket/name", "7"), "workers": workers,
        "timeout_seconds": 3600.5,
    }  # fmt: skip
    return TrainingJob(**fields | changes)


def manifest(backend, workers=1, environment=None, **given):
    settings = JobSettings.parse({"train_backend": backend, **given})
    return KINDS[backend].manifest(a_job(workers), settings, environment or {})


def pod_templates(found):
    if found["kind"] == "PyTorchJob":
        return [replicas["template"] for replicas in found["spec"]["pytorchReplicaSpecs"].values()]
    (patch,) = found["spec"]["runtimePatches"]
    (nodes,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return [nodes["template"]["spec"]["template"]]


def container(found):
    """The container that trains, a TrainJob's put together from what it says and what it patches."""
    (patched,) = pod_templates(found)[0]["spec"]["containers"]
    trainer = found["spec"].get("trainer", {})
    return patched | {name: value for name, value in trainer.items() if name in ("image", "command", "args", "env")}


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
TOLERATIONS = st.fixed_dictionaries(
    {"operator": st.sampled_from(["Exists", "Equal"])},
    optional={
        "key": NAMES, "value": NAMES, "effect": st.sampled_from(["NoSchedule", "NoExecute"]),
        "tolerationSeconds": st.integers(0, 10**6),
    },
)  # fmt: skip
EACH = st.integers(1, 8)
SETTINGS = st.fixed_dictionaries(
    {"train_pods": st.integers(1, 64)},
    optional={
        "train_image": st.just("registry.local:5000/trainer@sha256:" + "0" * 64),
        "train_pod_cpu": st.sampled_from(["500m", "1", "12", "1.5"]),
        "train_pod_memory": st.sampled_from(["1Gi", "900M", "1.5Ti"]),
        "train_node_selector": st.dictionaries(NAMES, NAMES, max_size=3),
        "train_tolerations": st.lists(TOLERATIONS, max_size=3),
        "train_service_account": NAMES,
        "train_queue": NAMES,
        "train_runtime": NAMES,
        "train_restarts": st.integers(0, 100),
        "train_keep_seconds": st.integers(0, 10**8),
        "gpu_resource": st.sampled_from(["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.10gb"]),
        "image_pull_secrets": st.lists(NAMES, max_size=3, unique=True),
        "s3_secret": NAMES,
        "keys_secret": NAMES,
    },
)


@pytest.mark.parametrize("backend", BACKENDS)
@given(chosen=SETTINGS, each=EACH, gpu=st.booleans())
@hypothesis_settings(deadline=None, max_examples=20)
def test_every_manifest_is_one_that_the_cluster_knows_every_field_of(schemas, backend, chosen, each, gpu):
    environment = {"HF_HUB_OFFLINE": "1", **SECRETS}
    workers = chosen["train_pods"] * each
    found = manifest(backend, workers, environment, train_pod_gpus=str(each if gpu else 0), **chosen)
    assert schemas[backend].unknown(found) == [] and schemas[backend].invalid(found) == []
    assert "kept-secret" not in json.dumps(found)


@pytest.mark.parametrize(
    ("backend", "path", "value", "unknown", "invalid"),
    [
        ("pytorchjob", ("spec", "runPolicy", "backofLimit"), 1, [".spec.runPolicy.backofLimit"], 0),
        ("pytorchjob", ("spec", "runPolicy", "backoffLimit"), "1", [], 1),
        ("pytorchjob", ("spec", "runPolicy", "suspend"), 1, [], 1),
        ("pytorchjob", ("spec", "nprocPerNode"), 2, [], 1),
        ("pytorchjob", ("metadata", "label"), {}, [".metadata.label"], 0),
        ("pytorchjob", ("apiVersion",), "kubeflow.org/v2", [], 1),
        ("trainjob", ("spec", "podTemplateOverrides"), [], [".spec.podTemplateOverrides"], 0),
        ("trainjob", ("spec", "trainer", "numNodes"), True, [], 1),
        ("trainjob", ("spec", "activeDeadlineSeconds"), 0, [], 1),
        ("trainjob", ("spec", "runtimeRef"), {}, [], 1),
        ("trainjob", ("metadata", "name"), "7-begins-with-a-number", [], 1),
    ],
)
def test_the_schemas_find_what_is_wrong(schemas, backend, path, value, unknown, invalid):
    found = copy.deepcopy(manifest(backend))
    place = found
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert schemas[backend].unknown(found) == unknown and len(schemas[backend].invalid(found)) == invalid


@pytest.mark.parametrize("backend", BACKENDS)
def test_pods_meet_the_restricted_security_standard(backend):
    found = manifest(backend, 2, train_pods=2)
    for template in pod_templates(found):
        spec = template["spec"]
        assert spec["securityContext"] == {
            "runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"},
        }  # fmt: skip
        assert spec["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_secrets_are_references_and_the_hubs_may_be_missing(backend):
    variables = {one["name"]: one.get("valueFrom") for one in container(manifest(backend, environment=SECRETS))["env"]}
    assert {name: value["secretKeyRef"] for name, value in variables.items() if value} == {
        "AWS_ACCESS_KEY_ID": {"name": "mlpipeline-minio-artifact", "key": "accesskey"},
        "AWS_SECRET_ACCESS_KEY": {"name": "mlpipeline-minio-artifact", "key": "secretkey"},
        "HF_TOKEN": {"name": "oatflow-keys", "key": "HF_TOKEN", "optional": True},
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_settings_of_the_place_travel_along_and_nothing_else(backend):
    place = {name: f"the {name}" for name in pod_template.PLACE}
    found = container(manifest(backend, environment=place | {"PATH": "/bin", "LD_PRELOAD": "x", "OATFLOW_OWNER": "{}"}))
    plain = {one["name"]: one["value"] for one in found["env"] if "value" in one}
    assert plain == place | {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "4"}


@pytest.mark.parametrize(
    ("cpu", "workers", "threads"), [("8", 2, "4"), ("500m", 1, "1"), ("1500m", 1, "1"), ("2.5", 1, "2"), ("1", 4, "1")]
)
def test_the_cores_of_a_pod_are_shared_by_its_workers(cpu, workers, threads):
    found = container(manifest("pytorchjob", workers, train_pod_cpu=cpu))
    assert {"name": "OMP_NUM_THREADS", "value": threads} in found["env"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pod_gets_what_it_asks_for(backend):
    found = manifest(backend, 4, train_pods=2, train_pod_gpus="2", train_pod_memory="64Gi", gpu_resource="amd.com/gpu")
    each = found["spec"]["trainer"]["resourcesPerNode"] if backend == "trainjob" else container(found)["resources"]
    assert each["requests"] == each["limits"] == {"cpu": "4", "memory": "64Gi", "amd.com/gpu": "2"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_shared_memory_and_scratch_space_are_bounded_volumes(backend):
    spec = pod_templates(manifest(backend, train_pod_shared_memory="8Gi"))[0]["spec"]
    assert {one["name"]: one["emptyDir"] for one in spec["volumes"] if one["name"] != "no-token"} == {
        "scratch": {"sizeLimit": "50Gi"}, "shared-memory": {"medium": "Memory", "sizeLimit": "8Gi"},
    }  # fmt: skip
    mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
    assert mounts.items() >= {"scratch": "/tmp", "shared-memory": "/dev/shm"}.items()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_job_and_its_pods_are_found_by_experiment_round_and_token(backend):
    found = manifest(backend)
    ours = {
        "app.kubernetes.io/name": "oatflow", "app.kubernetes.io/component": "trainer",
        "oatflow.dev/experiment": "0123456789ab", "oatflow.dev/round": "7", "oatflow.dev/token": "12",
    }  # fmt: skip
    assert found["metadata"]["name"] == "oatflow-0123456789ab-r00007-t12"
    assert found["metadata"]["labels"] == ours
    (template,) = pod_templates(found)
    assert template["metadata"] == {
        "labels": ours | {"sidecar.istio.io/inject": "false"},
        "annotations": {"oatflow.dev/ledger": "s3://bucket/name", "sidecar.istio.io/inject": "false"},
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_queued_job_begins_suspended(backend):
    found = manifest(backend, train_queue="gpus")
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert found["spec"].get("runPolicy", found["spec"])["suspend"] is True
    assert "suspend" not in json.dumps(manifest(backend))


def test_one_pod_is_a_master_without_workers():
    assert list(manifest("pytorchjob")["spec"]["pytorchReplicaSpecs"]) == ["Master"]
    both = manifest("pytorchjob", 6, train_pods=3)["spec"]
    assert {name: one["replicas"] for name, one in both["pytorchReplicaSpecs"].items()} == {"Master": 1, "Worker": 2}
    assert both["nprocPerNode"] == "2"


def test_a_pytorchjob_fails_with_its_first_pod():
    spec = manifest("pytorchjob", 2, train_pods=2, train_restarts=2)["spec"]
    assert {replicas["restartPolicy"] for replicas in spec["pytorchReplicaSpecs"].values()} == {"Never"}
    assert spec["runPolicy"] == {
        "activeDeadlineSeconds": 3601, "ttlSecondsAfterFinished": 86_400, "cleanPodPolicy": "Running",
    }  # fmt: skip


def test_pods_of_a_pytorchjob_have_no_token_no_links_and_their_priority():
    spec = pod_templates(manifest("pytorchjob", train_priority_class="high"))[0]["spec"]
    assert spec["priorityClassName"] == "high"
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False


def test_pods_of_a_trainjob_have_an_empty_folder_where_their_token_would_be():
    """Kubernetes mounts no token where the container has a mount of its own; a patch has no field that says it."""
    spec = pod_templates(manifest("trainjob"))[0]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    name = mounts["/var/run/secrets/kubernetes.io/serviceaccount"]
    assert {"name": name, "emptyDir": {"sizeLimit": "1Mi"}} in spec["volumes"]


def test_what_a_trainjob_cannot_carry_is_refused():
    with pytest.raises(SettingsError, match=r"jobs.train_priority_class='high': a TrainJob cannot carry it"):
        manifest("trainjob", train_priority_class="high")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("workers", "given", "letter"),
    [
        (3, {"train_pods": 2}, r"jobs.train_pods=2: policy.train_workers=3 cannot be shared evenly"),
        (1, {"train_pods": 2}, r"jobs.train_pods=2: policy.train_workers=1 cannot"),
        (4, {"train_pods": 2, "train_pod_gpus": "1"}, r"jobs.train_pod_gpus=.1.: each pod runs 2 workers"),
    ],
)
def test_workers_that_do_not_fit_their_pods_are_refused(backend, workers, given, letter):
    with pytest.raises(SettingsError, match=letter):
        manifest(backend, workers, **given)
