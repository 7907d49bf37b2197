"""The policy finds what it is there to find, in every kind that runs pods."""

import copy

import pytest

from .policy import problems

POD = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "work",
            "image": "registry.example:5000/oatflow/control:0.1.0",
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "env": [{"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "id"}}}],
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}


def in_job(pod):
    return {"kind": "Job", "metadata": {"name": "a"}, "spec": {"template": {"spec": pod}}}


def in_replicas(pod):
    good = {"Master": {"template": {"spec": POD}}, "Worker": {"template": {"spec": pod}}}
    return {"kind": "PyTorchJob", "metadata": {"name": "a"}, "spec": {"pytorchReplicaSpecs": good}}


def in_train_job(pod):
    """As the launcher writes it: image, resources and variables stand once in the trainer, the rest in a patch."""
    pod = copy.deepcopy(pod)
    node = pod["containers"][0]
    node["name"] = "node"
    taken = {field: node.pop(field, None) for field in ("image", "resources", "env")}
    trainer = {"image": taken["image"], "resourcesPerNode": taken["resources"], "env": taken["env"]}
    template = {"spec": {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": {"spec": pod}}}}]}}
    spec = {"trainer": trainer, "runtimePatches": [{"trainingRuntimeSpec": {"template": template}}]}
    return {"kind": "TrainJob", "metadata": {"name": "a"}, "spec": spec}


KINDS = {
    "Pod": lambda pod: {"kind": "Pod", "metadata": {"name": "a"}, "spec": pod},
    "Deployment": lambda pod: in_job(pod) | {"kind": "Deployment"},
    "Job": in_job,
    "CronJob": lambda pod: {"kind": "CronJob", "metadata": {"name": "a"}, "spec": {"jobTemplate": in_job(pod)}},
    "PyTorchJob": in_replicas,
    "TrainJob": in_train_job,
    "a kind nobody knows": lambda pod: {"kind": "Novelty", "spec": {"deep": [{"down": pod}]}},
}


def pod_with(change):
    pod = copy.deepcopy(POD)
    change(pod, pod["containers"][0], pod["containers"][0]["securityContext"])
    return pod


BAD = {
    "privileged": lambda pod, container, security: security.update(privileged=True),
    "allowPrivilegeEscalation is not false": lambda pod, container, security: security.pop("allowPrivilegeEscalation"),
    "readOnlyRootFilesystem is not true": lambda pod, container, security: security.pop("readOnlyRootFilesystem"),
    "does not drop ALL capabilities": lambda pod, container, security: security["capabilities"].update(drop=["KILL"]),
    "adds capabilities SYS_ADMIN": lambda pod, container, security: security["capabilities"].update(add=["SYS_ADMIN"]),
    "procMount is not Default": lambda pod, container, security: security.update(procMount="Unmasked"),
    "runAsNonRoot is not true": lambda pod, container, security: security.update(runAsNonRoot=False),
    "runAsUser is 0": lambda pod, container, security: security.update(runAsUser=0),
    "seccompProfile is not RuntimeDefault": lambda pod, container, security: pod["securityContext"].update(
        seccompProfile={"type": "Unconfined"}
    ),
    "hostNetwork: shares": lambda pod, container, security: pod.update(hostNetwork=True),
    "hostPID: shares": lambda pod, container, security: pod.update(hostPID=True),
    "hostIPC: shares": lambda pod, container, security: pod.update(hostIPC=True),
    "hostPath is not allowed": lambda pod, container, security: pod["volumes"].append(
        {"name": "root", "hostPath": {"path": "/"}}
    ),
    "takes a port of the host's": lambda pod, container, security: container.update(ports=[{"hostPort": 80}]),
    "no image": lambda pod, container, security: container.pop("image"),
    "a:latest: name a version": lambda pod, container, security: container.update(image="r.example/a:latest"),
    "5000/control: name a version": lambda pod, container, security: container.update(image="r.example:5000/control"),
    "no requests.cpu": lambda pod, container, security: container["resources"]["requests"].pop("cpu"),
    "no limits.memory": lambda pod, container, security: container["resources"].pop("limits"),
    "HF_TOKEN is written out": lambda pod, container, security: container["env"].append(
        {"name": "HF_TOKEN", "value": "hf_example"}
    ),
    "container helper: no image": lambda pod, container, security: pod.update(initContainers=[{"name": "helper"}]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_that_meets_the_standard_is_let_through(kind):
    assert problems(KINDS[kind](POD)) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", BAD)
def test_each_fault_is_found_in_every_kind(kind, what):
    assert any(what in problem for problem in problems(KINDS[kind](pod_with(BAD[what]))))


def test_an_image_by_digest_needs_no_tag():
    pod = pod_with(lambda pod, container, security: container.update(image="r.example/control@sha256:0123"))
    assert problems(in_job(pod)) == []


@pytest.mark.parametrize("kind", ["PyTorchJob", "TrainJob", "Job"])
def test_a_job_that_leaves_its_pods_to_others_is_not_taken_to_be_harmless(kind):
    assert problems({"kind": kind, "metadata": {"name": "a"}, "spec": {"trainer": {"image": "r.example/t:1"}}})


@pytest.mark.parametrize("field", ["apiGroups", "resources", "verbs"])
def test_a_wildcard_in_a_role_is_found(field):
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    assert problems({"kind": "Role", "metadata": {"name": "a"}, "rules": [rule]}) == []
    assert problems({"kind": "Role", "metadata": {"name": "a"}, "rules": [rule | {field: ["*"]}]})


def test_a_binding_beyond_the_namespace_is_found():
    assert problems({"kind": "ClusterRoleBinding", "metadata": {"name": "a"}, "roleRef": {"kind": "ClusterRole"}})


def test_a_binding_to_a_role_of_the_cluster_is_found():
    admin = {"kind": "ClusterRole", "name": "cluster-admin"}
    assert "cluster-admin" in problems({"kind": "RoleBinding", "metadata": {"name": "a"}, "roleRef": admin})[0]


@pytest.mark.parametrize("field", ["data", "stringData"])
def test_a_secret_with_values_is_found(field):
    assert problems({"kind": "Secret", "metadata": {"name": "a"}, field: {"HF_TOKEN": "x"}})
