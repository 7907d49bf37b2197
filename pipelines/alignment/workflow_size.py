"""How many pods a compiled pipeline starts, and how large the Argo Workflow becomes that KFP makes of it.

Argo keeps a run in one object: the workflow's specification, and a status with one entry for each node, which holds
the values of the node's inputs and outputs. Above 1 MiB Argo compresses the status; if the object is still larger, the
run fails in the middle (argo-workflows, workflow/packer). etcd takes 1.5 MiB, and KFP's Retry of a failed run writes
the object without compression (kubeflow/pipelines#13738): by this estimate it works for runs of one or two rounds.

The sizes are estimates. They build what KFP 2.17 writes, with texts of typical length in place of values that are
known only in the cluster. Two specifications of ten rounds were measured on a cluster; the tests hold them against
the estimate.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]

ARGO_LIMIT = 1024 * 1024
# Left free below Argo's limit: for longer values, for what an administrator adds to pods, for pods started again.
FREE = 0.1
# What a Workflow has beside what is built here: metadata, and the templates of KFP's drivers. Fitted to the cluster.
_FIXED = 125_000
# Texts that take the place of values known only in the cluster.
_UID = "0" * 36
_NODE = "oatflow-alignment-00000"


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods of a run in which every condition holds. `drivers`: those of KFP itself, which say what a step gets."""

    steps: int
    drivers: int

    @property
    def all(self) -> int:
        """Pods altogether."""
        return self.steps + self.drivers


@dataclass(frozen=True, slots=True)
class WorkflowSize:
    """Bytes of a Workflow: of its specification, and of its status at the end of the run, plain and compressed."""

    specification: int
    status: int
    compressed_status: int

    @property
    def smallest(self) -> int:
        """Bytes at the end of the run, after Argo has compressed what it can."""
        return self.specification + self.compressed_status

    @property
    def fits(self) -> bool:
        """Whether Argo takes it, with something left free."""
        return self.smallest <= ARGO_LIMIT * (1 - FREE)


def count_pods(spec: Spec) -> Pods:
    """Return the pods of a run: KFP starts a driver for each DAG and each step, and a pod for each step."""
    executors = spec["deploymentSpec"]["executors"]
    steps, drivers = 0, 1
    for _, _, component in _walk_tasks(spec, spec["root"]):
        steps += "dag" not in component
        # An importer resolves its inputs itself.
        drivers += "importer" not in executors.get(component.get("executorLabel"), {})
    return Pods(steps, drivers)


def workflow_size(spec: Spec, kubernetes: Spec) -> WorkflowSize:
    """Return the size of the Workflow of a pipeline. `kubernetes`: what the platform is given for each executor."""
    status = _text(build_status(spec, kubernetes))
    compressed = base64.b64encode(gzip.compress(status.encode(), mtime=0))
    return WorkflowSize(_FIXED + len(_text(_measure_specification(spec, kubernetes))), len(status), len(compressed))


def _measure_specification(spec: Spec, kubernetes: Spec) -> Spec:
    """Build what KFP compiles: each component once as an argument, and for each DAG a template with its tasks."""
    executors, arguments, templates = spec["deploymentSpec"]["executors"], {}, []
    for name, component in {"root": spec["root"], **spec["components"]}.items():
        if "dag" in component:
            arguments[f"components-{name}"] = _text(component)
            tasks = [part for task in component["dag"]["tasks"].items() for part in _argo_tasks(spec, *task)]
            templates.append({"name": name, "inputs": {"parameters": [{"name": "parent-dag-id"}]}, "dag": tasks,
                              "metadata": {}, "outputs": {}})  # fmt: skip
            continue
        container = _text(_find_implementation(executors[component["executorLabel"]]))
        digest = hashlib.sha256(container.encode()).hexdigest()
        arguments[f"components-{digest}"] = _text(component)
        arguments[f"implementations-{digest}"] = container
        arguments[f"kubernetes-{name}"] = _text(kubernetes.get(component["executorLabel"], {}))
    return {"arguments": [{"name": name, "value": value} for name, value in arguments.items()], "templates": templates,
            "runtime-config": _text(_form(spec))}  # fmt: skip


def _argo_tasks(spec: Spec, name: str, task: Spec) -> Iterator[Spec]:
    """Build the two tasks that KFP makes of one: its driver, which is given the task's text, and the task itself."""
    component = spec["components"][task["componentRef"]["name"]]
    depends = " && ".join(f"{other}.Succeeded" for other in _list_dependencies(task))
    placeholder = "{{workflow.parameters.components-" + "0" * 64 + "}}"
    parent = "{{inputs.parameters.parent-dag-id}}"
    given = {"component": placeholder, "parent-dag-id": parent, "task": _text(task), "task-name": name}
    out = "{{tasks." + name + "-driver.outputs.parameters."
    if "dag" in component:
        yield _argo_task(f"{name}-driver", "system-dag-driver", given, depends)
        after = {"parent-dag-id": out + "execution-id}}", "condition": out + "condition}}"}
        yield _argo_task(name, task["componentRef"]["name"], after, f"{name}-driver.Succeeded")
        return
    given |= {"container": placeholder, "kubernetes-config": placeholder}
    yield _argo_task(f"{name}-driver", "system-container-driver", given, depends)
    after = {"pod-spec-patch": out + "pod-spec-patch}}", "cached-decision": out + "cached-decision}}",
             "retry-max-count": "2", "retry-backoff-duration": "60", "retry-backoff-factor": "2",
             "retry-backoff-max-duration": "600"}  # fmt: skip
    yield _argo_task(name, "retry-system-container-executor", after, f"{name}-driver.Succeeded")


def _argo_task(name: str, template: str, arguments: Mapping[str, str], depends: str) -> Spec:
    parameters = [{"name": key, "value": value} for key, value in arguments.items()]
    return {"name": name, "template": template, "arguments": {"parameters": parameters}, "depends": depends}


def build_status(spec: Spec, kubernetes: Spec) -> Spec:
    """Return the nodes of a run that has succeeded, by their ids, each with the values that it was given."""
    executors, nodes = spec["deploymentSpec"]["executors"], {}

    def add(path: str, inputs: Spec, outputs: Spec, pod: bool = False) -> None:
        # KFP's settings of Argo let every node be tried again, so that each is there twice.
        for attempt in ("", "(0)"):
            number = int.from_bytes(hashlib.sha256(f"{path}{attempt}".encode()).digest()[:4], "big")
            key, name = f"{_NODE}-{number}", path.rpartition(".")[2]
            nodes[key] = {
                "id": key, "name": f"{_NODE}.root.{path}{attempt}", "displayName": f"{name}{attempt}",
                "type": "Pod" if pod else "DAG", "templateName": "retry-system-container-executor",
                "templateScope": f"local/{_NODE}", "phase": "Succeeded", "boundaryID": f"{_NODE}-{_UID[:10]}",
                "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:00Z", "estimatedDuration": 10,
                "progress": "1/1", "resourcesDuration": {"cpu": number % 1000, "memory": number % 3000},
                "inputs": {"parameters": _parameters(inputs)}, "outputs": {"parameters": _parameters(outputs)},
                "children": [f"{_NODE}-{number + 1}"], "hostNodeName": "node-00000", "nodeFlag": {"retried": True},
            }  # fmt: skip

    form = _form(spec)
    add(_NODE, {}, {})
    add("root-driver", {"component": _text(spec["root"]), "runtime-config": _text(form)}, {"execution-id": "12345"})
    add("root", {"parent-dag-id": "12345"}, {})
    for path, task, component in _walk_tasks(spec, spec["root"]):
        name = path.rpartition(".")[2]
        given = {"component": _text(component), "task": _text(task), "task-name": name, "parent-dag-id": "12345"}
        if "dag" in component:
            add(f"{path}-driver", given, {"execution-id": "12345", "condition": "true"}, pod=True)
            add(path, {"parent-dag-id": "12345", "condition": "true"}, {})
            continue
        container = _find_implementation(executors[component["executorLabel"]])
        platform = kubernetes.get(component["executorLabel"], {})
        given |= {"container": _text(container), "kubernetes-config": _text(platform)}
        pod = {"pod-spec-patch": _text(_pod(name, task, component, container, platform, form))}
        add(f"{path}-driver", given, pod | {"cached-decision": "false", "condition": "true"}, pod=True)
        add(path, pod | {"retry-max-count": "2"}, {})
        add(f"{path}.executor", pod | {"retry-max-count": "2"}, {}, pod=True)
    return nodes


def _pod(name: str, task: Spec, component: Spec, container: Spec, platform: Spec, form: Spec) -> Spec:
    """Build what a driver says of a step's pod: KFP's launcher with all inputs and outputs, and the step's command."""
    values = {key: form.get(str(source.get("componentInputParameter", "")).removeprefix("pipelinechannel--"), _UID)
              for key, source in task.get("inputs", {}).get("parameters", {}).items()}  # fmt: skip
    outputs = component.get("outputDefinitions", {})
    shown = {key: _measure_artifact(key) for key in outputs.get("artifacts", {})}
    inputs = {key: _measure_artifact(key) for key in task.get("inputs", {}).get("artifacts", {})}
    executor_input = {
        "inputs": {"parameterValues": values, "artifacts": inputs},
        "outputs": {"artifacts": shown, "outputFile": "/tmp/kfp_outputs/output_metadata.json",
                    "parameters": {key: {"outputFile": f"/tmp/kfp/{key}"} for key in outputs.get("parameters", {})}},
    }  # fmt: skip
    variables = [pair for source in platform.get("secretAsEnv", []) + platform.get("configMapAsEnv", [])
                 for pair in source["keyToEnv"]]  # fmt: skip
    return {"containers": [{
        "name": "main", "image": container["image"], "args": [*container["command"], *container.get("args", [])],
        "command": ["/kfp-launcher/launch", "--pipeline_name", "oatflow-alignment", "--run_id", _UID, "--execution_id",
                    "12345", "--executor_input", _text(executor_input), "--component_spec", _text(component),
                    "--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)", "--mlmd_server_address",
                    "$(METADATA_GRPC_SERVICE_HOST)", "--mlmd_server_port", "$(METADATA_GRPC_SERVICE_PORT)", "--"],
        "env": [{"name": pair["envVar"], "valueFrom": {"secretKeyRef": {"name": "mlpipeline-minio-artifact", "optional":
                 True, "key": pair["envVar"]}}} for pair in variables],
        "resources": {"limits": {"cpu": "1", "memory": "4Gi"}, "requests": {"cpu": "100m", "memory": "512Mi"}},
    }]}  # fmt: skip


def _measure_artifact(name: str) -> Spec:
    """Build an artifact as KFP describes it to a step."""
    metadata = {"digest": "0" * 64, "ledger": "s3://bucket/private/team/oatflow/name?endpoint=http://store:9000",
                "store_session_info": "0" * 250}  # fmt: skip
    uri = f"s3://bucket/v2/artifacts/oatflow-alignment/{_UID}/{name}/{_UID}/{name}"
    kind = {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}
    return {"artifacts": [{"name": name, "uri": uri, "type": kind, "metadata": metadata}]}


def _walk_tasks(spec: Spec, component: Spec, above: str = "") -> Iterator[tuple[str, Spec, Spec]]:
    """Yield every task of a run, with its path and its component; a component that is used twice comes twice."""
    for name, task in component["dag"]["tasks"].items():
        inner = spec["components"][task["componentRef"]["name"]]
        yield f"{above}{name}", task, inner
        if "dag" in inner:
            yield from _walk_tasks(spec, inner, f"{above}{name}.")


def _list_dependencies(task: Spec) -> list[str]:
    inputs = task.get("inputs", {})
    producers = [source["taskOutputParameter"]["producerTask"] for source in inputs.get("parameters", {}).values()
                 if "taskOutputParameter" in source]  # fmt: skip
    producers += [source["taskOutputArtifact"]["producerTask"] for source in inputs.get("artifacts", {}).values()
                  if "taskOutputArtifact" in source]  # fmt: skip
    return list(dict.fromkeys([*task.get("dependentTasks", []), *producers]))


def _form(spec: Spec) -> Spec:
    parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    return {name: field.get("defaultValue", "s3://bucket/name") for name, field in parameters.items()}


def _find_implementation(executor: Spec) -> Spec:
    found: Spec = executor.get("container") or {"image": "", "command": [], **executor}
    return found


def _parameters(values: Mapping[str, str]) -> list[Spec]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
