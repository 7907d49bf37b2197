"""What KFP's backend asks of a compiled pipeline, although its SDK compiles more, and its local runners run more.

A breach shows only on a cluster, often in the middle of a run. Each rule says where it was seen: in a thread of
kubeflow/pipelines (#N), in the source of its backend (a path below backend/src/v2), or on a cluster with KFP 2.17.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from oatflow.components.errors import OatflowError

Spec = dict[str, Any]
ROOT = "root"
MOST_PARAMETER_BYTES = 10_000
_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_READ_BY_CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\]")
# What only the driver knows; it replaces a text that is nothing else.
_RUN_PLACEHOLDER = re.compile(r"\{\{\$\.pipeline_(?:job|task)_\w+\}\}")
_RESOLVED = ("componentInputParameter", "taskOutputParameter", "taskFinalStatus")
_RESOURCES = ("resourceCpuLimit", "resourceMemoryLimit", "resourceCpuRequest", "resourceMemoryRequest")
_NUMBERS = ("NUMBER_INTEGER", "NUMBER_DOUBLE")
# Names of templates that KFP itself adds to a Workflow.
_RESERVED = ("entrypoint", "system-container-driver", "system-dag-driver", "system-importer")


class PipelineRefused(OatflowError):
    """KFP's backend would refuse the compiled pipeline, or would not run it as it is meant."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A task or component that breaks a rule: what it has, and what to do."""

    rule: str
    place: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: breaks {self.rule!r}: {self.found}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A compiled pipeline: its specification, and what Kubernetes is given for each executor."""

    spec: Spec
    kubernetes: Spec

    @property
    def components(self) -> Spec:
        """All components but the root, by name."""
        found: Spec = self.spec.get("components", {})
        return found

    def executor(self, component: Spec) -> Spec:
        """Return the executor of a component that is a step; empty if there is none."""
        executors: Spec = self.spec.get("deploymentSpec", {}).get("executors", {})
        found: Spec = executors.get(component.get("executorLabel", ""), {})
        return found

    def component(self, task: Spec) -> Spec:
        """Return the component of a task; empty if there is none."""
        found: Spec = self.components.get(task.get("componentRef", {}).get("name", ""), {})
        return found

    def dags(self) -> Iterator[tuple[str, Spec]]:
        """Yield the components that have tasks."""
        for name, component in {ROOT: self.spec["root"], **self.components}.items():
            if "dag" in component:
                yield name, component

    def tasks(self) -> Iterator[tuple[Spec, str, Spec]]:
        """Yield each task with its DAG and its name."""
        for _, dag in self.dags():
            for name, task in dag["dag"]["tasks"].items():
                yield dag, name, task


Found = Iterator[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the backend. `find` yields where it is broken: place, what was found, what to do."""

    name: str
    sentence: str
    source: str
    find: Callable[[Pipeline], Found]


def check_backend_rules(spec: Spec, kubernetes: Spec) -> None:
    """Raise `PipelineRefused` for a compiled pipeline that KFP's backend would refuse, or not run as it is meant.

    Args:
        spec: The pipeline's specification, the first document of what KFP compiles.
        kubernetes: What Kubernetes is given for each executor, from the second document.
    """
    breaches = find_breaches(spec, kubernetes)
    if breaches:
        more = f" (and {len(breaches) - 1} more)" if len(breaches) > 1 else ""
        raise PipelineRefused(f"{breaches[0]}{more}")


def find_breaches(spec: Spec, kubernetes: Spec) -> list[Breach]:
    """Return every breach of every rule, in the order of the rules."""
    pipeline = Pipeline(spec, kubernetes)
    return [Breach(rule.name, *found) for rule in RULES for found in rule.find(pipeline)]


# References.


def _unknown_component(pipeline: Pipeline) -> Found:
    for _, name, task in pipeline.tasks():
        component = pipeline.component(task)
        if not component:
            yield name, f"its component {task.get('componentRef', {}).get('name')!r} is missing", "add the component"
        elif "dag" not in component and not pipeline.executor(component):
            yield name, f"its executor {component.get('executorLabel')!r} is missing", "add the executor"


def _unknown_producer(pipeline: Pipeline) -> Found:
    for dag, name, task in pipeline.tasks():
        tasks = dag["dag"]["tasks"]
        for other in task.get("dependentTasks", []):
            if other not in tasks:
                yield name, f"it waits for {other!r}, which is not in its DAG", "wait for a task of the same DAG"
        for kind, source in _outputs_taken(task):
            producer, key = source["producerTask"], source[f"output{kind}Key"]
            if producer not in tasks:
                yield name, f"it takes {key!r} of {producer!r}, which is not in its DAG", "pass it through the DAGs"
            elif key not in _definitions(pipeline.component(tasks[producer]), "output", kind):
                yield name, f"it takes {key!r} of {producer!r}, which has no such output", "take an output that exists"


def _unknown_input(pipeline: Pipeline) -> Found:
    for dag, name, task in pipeline.tasks():
        for kind in ("Parameter", "Artifact"):
            for source in task.get("inputs", {}).get(f"{kind.lower()}s", {}).values():
                taken = source.get(f"componentInput{kind}")
                if taken is not None and taken not in _definitions(dag, "input", kind):
                    yield name, f"it takes {taken!r}, which its DAG does not have", "pass it down to the DAG"
        platform = pipeline.kubernetes.get(pipeline.component(task).get("executorLabel", ""), {})
        for taken in _platform_inputs(platform):
            if taken not in _definitions(dag, "input", "Parameter"):
                yield name, f"its pod takes {taken!r}, which its DAG does not have", "pass it down to the DAG"


def _missing_input(pipeline: Pipeline) -> Found:
    for _, name, task in pipeline.tasks():
        given, iterator = task.get("inputs", {}), task.get("parameterIterator", {})
        for kind in ("Parameter", "Artifact"):
            for key, field in _definitions(pipeline.component(task), "input", kind).items():
                needed = not field.get("isOptional") and "defaultValue" not in field
                if needed and key not in given.get(f"{kind.lower()}s", {}) and key != iterator.get("itemInput"):
                    yield name, f"its input {key!r} is not given and has no default", "give it"


def _resolvable_value(pipeline: Pipeline) -> Found:
    for _, name, task in pipeline.tasks():
        for key, source in _parameters(task).items():
            constant = source.get("runtimeValue", {}).get("constant")
            if not set(source) & set(_RESOLVED) and constant is None:
                yield name, f"its input {key!r} is of a kind that the driver does not resolve", "give a constant"
            elif _RUN_PLACEHOLDER.search(str(constant)) and not _RUN_PLACEHOLDER.fullmatch(str(constant)):
                yield name, f"its input {key!r} has a placeholder within other text", "pass the placeholder alone"


def _absent_value(pipeline: Pipeline) -> Found:
    for dag, name, task in pipeline.tasks():
        has, takes = (
            _definitions(dag, "input", "Parameter"),
            _definitions(pipeline.component(task), "input", "Parameter"),
        )
        for key, source in _parameters(task).items():
            field = has.get(source.get("componentInputParameter", ""), {})
            may_be_absent = field.get("isOptional") and "defaultValue" not in field
            if may_be_absent and not takes.get(key, {"isOptional": True}).get("isOptional"):
                yield name, f"its input {key!r} may be absent, and the step needs it", "give the parameter a default"


def _dag_output(pipeline: Pipeline) -> Found:
    for name, dag in pipeline.dags():
        outputs = dag["dag"].get("outputs", {})
        for key, output in outputs.get("artifacts", {}).items():
            selectors = output.get("artifactSelectors", [])
            if len(selectors) > 1:
                yield name, f"its artifact {key!r} comes from one of {len(selectors)} tasks", "have one task write it"
            yield from _select_parts(pipeline, name, dag, "Artifact", selectors)
        for output in outputs.get("parameters", {}).values():
            one = [output["valueFromParameter"]] if "valueFromParameter" in output else []
            selectors = one or output.get("valueFromOneof", {}).get("parameterSelectors", [])
            yield from _select_parts(pipeline, name, dag, "Parameter", selectors)


def _select_parts(pipeline: Pipeline, name: str, dag: Spec, kind: str, selectors: list[Spec]) -> Found:
    for selector in selectors:
        task, key = selector["producerSubtask"], selector[f"output{kind}Key"]
        if key not in _definitions(pipeline.component(dag["dag"]["tasks"].get(task, {})), "output", kind):
            yield name, f"its output comes from {key!r} of {task!r}, which does not exist", "name an output that exists"


# Names.


def _task_names(pipeline: Pipeline) -> Found:
    names: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for name, task in _whole_run(pipeline, pipeline.spec["root"], ()):
        names[name] += 1
        shown[task.get("taskInfo", {}).get("name", name)] += 1
    for name, times in (names | shown).items():
        if times > 1:
            yield name, f"{times} tasks of the run have this name", "give each task a name of its own"


def _shown_name(pipeline: Pipeline) -> Found:
    for dag, name, task in pipeline.tasks():
        shown = task.get("taskInfo", {}).get("name", name)
        read = any(source["producerTask"] == name for other in dag["dag"]["tasks"].values()
                   for _, source in _outputs_taken(other))  # fmt: skip
        if read and shown != name:
            yield name, f"another task takes its output, and it is shown as {shown!r}", "show it under its own name"


def _valid_names(pipeline: Pipeline) -> Found:
    for dag, name, _ in pipeline.tasks():
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
            yield name, "its name is not made of a-z, 0-9 and dashes", "rename the task"
        if name.removesuffix("-driver") != name and name.removesuffix("-driver") in dag["dag"]["tasks"]:
            yield name, f"KFP calls the driver of {name.removesuffix('-driver')!r} the same", "rename the task"
    for name in pipeline.components:
        if name in _RESERVED or name == ROOT:
            yield name, "KFP has a template of this name", "rename the component"


# Steps.


def _find_importers(pipeline: Pipeline) -> Found:
    for _, name, task in pipeline.tasks():
        if "importer" in pipeline.executor(pipeline.component(task)):
            yield (
                name,
                "an importer does not update its DAG, which stays RUNNING, and all DAGs above it",
                "name the artifact in the metadata of one that a step writes",
            )


def _importer_address(pipeline: Pipeline) -> Found:
    for _, name, task in pipeline.tasks():
        address = pipeline.executor(pipeline.component(task)).get("importer", {}).get("artifactUri", {})
        source = _parameters(task).get(address.get("runtimeParameter", ""), {})
        if "taskOutputParameter" in source:
            yield (
                name,
                f"its address comes from {source['taskOutputParameter']['producerTask']!r}",
                "give a constant, or an input of the DAG that it is in",
            )


def _importer_metadata(pipeline: Pipeline) -> Found:
    for _, name, task in pipeline.tasks():
        metadata = pipeline.executor(pipeline.component(task)).get("importer", {}).get("metadata", {})
        if "{{$" in json.dumps(metadata):
            yield (
                name,
                "its metadata has values that are known only in the run",
                "let a step write them: KFP stores the text of the placeholder",
            )


def _executor_kind(pipeline: Pipeline) -> Found:
    for _, name, task in pipeline.tasks():
        executor = pipeline.executor(pipeline.component(task))
        container = executor.get("container")
        if executor and container is None and "importer" not in executor:
            yield name, f"it has a {', '.join(executor)}, which only other backends run", "use a container"
        elif container is not None and not (container.get("image") and container.get("command")):
            yield name, "its container has no image or no command", "name both"


def _one_container(pipeline: Pipeline) -> Found:
    first: dict[str, tuple[str, str]] = {}
    for name, component in pipeline.components.items():
        container = pipeline.executor(component).get("container")
        if container:
            shape = json.dumps({**component, "executorLabel": ""}, sort_keys=True)
            other, its_shape = first.setdefault(json.dumps(container, sort_keys=True), (name, shape))
            if shape != its_shape:
                yield name, f"it has the container of {other!r} and other inputs or outputs", "give it another command"


def _cache(pipeline: Pipeline) -> Found:
    for _, name, task in pipeline.tasks():
        if task.get("cachingOptions", {}).get("enableCache"):
            yield name, "KFP's cache is on, and skips a step that reads the ledger", "switch it off for the task"


def _placeholders(pipeline: Pipeline) -> Found:
    for _, name, task in pipeline.tasks():
        container = pipeline.executor(pipeline.component(task)).get("container", {})
        for key in sorted(set(_PLACEHOLDER.findall(_texts(container)))):
            if key not in _parameters(task):
                yield name, f"its container names {key!r}, which is no input of the task", "give it to the task"


def _text_resources(pipeline: Pipeline) -> Found:
    for dag, name, task in pipeline.tasks():
        container = pipeline.executor(pipeline.component(task)).get("container", {})
        resources = container.get("resources", {})
        accelerator = resources.get("accelerator", {})
        texts = [resources.get(key, "") for key in _RESOURCES]
        texts += [accelerator.get(key, "") for key in ("resourceType", "resourceCount")]
        for key in sorted(set(_PLACEHOLDER.findall(" ".join([*texts, container.get("image", "")])))):
            kind = _type(pipeline, dag, _parameters(task).get(key, {}))
            if kind not in (None, "STRING"):
                yield name, f"{key!r}, a {kind}, sets a resource or the image: KFP reads text alone", "make it a text"


def _platform_types(pipeline: Pipeline) -> Found:
    for dag, name, task in pipeline.tasks():
        platform = pipeline.kubernetes.get(pipeline.component(task).get("executorLabel", ""), {})
        for key, types in _platform_kinds(platform):
            kind = _definitions(dag, "input", "Parameter").get(key, {}).get("parameterType")
            if kind is not None and kind not in types:
                yield name, f"its pod takes {key!r}, a {kind}", f"make it a {' or '.join(types)}"


def _types(pipeline: Pipeline) -> Found:
    for dag, name, task in pipeline.tasks():
        for key, field in _definitions(pipeline.component(task), "input", "Parameter").items():
            wanted, kind = field.get("parameterType"), _type(pipeline, dag, _parameters(task).get(key, {}))
            if kind in (None, wanted) or wanted in (None, "STRING") or {kind, wanted} <= set(_NUMBERS):
                continue
            yield name, f"its input {key!r} is a {wanted} and is given a {kind}", "give it the same type"


# Conditions, loops and ends.


def _condition_input(pipeline: Pipeline) -> Found:
    for dag, name, task in pipeline.tasks():
        condition = task.get("triggerPolicy", {}).get("condition", "")
        for key in _READ_BY_CONDITION.findall(condition):
            source = _parameters(task).get(key)
            if source is None:
                yield name, f"its condition reads {key!r}, which is no parameter of the task", "pass it to the task"
            elif source.get("taskOutputParameter", {}).get("outputParameterKey", "Output") != "Output":
                yield (
                    name,
                    "its condition reads a named output, which is false in local runs",
                    "read the output of a step with one plain return value",
                )
            elif _type(pipeline, dag, source) in ("LIST", "STRUCT"):
                yield name, f"its condition reads {key!r}, which is no plain value", "read a number or a text"
        if condition and "importer" in pipeline.executor(pipeline.component(task)):
            yield name, "it is an importer with a condition", "put the condition around it"


def _behind_condition(pipeline: Pipeline) -> Found:
    for dag, name, task in pipeline.tasks():
        tasks = dag["dag"]["tasks"]
        taken = [source["producerTask"] for _, source in _outputs_taken(task)]
        for other in dict.fromkeys([*task.get("dependentTasks", []), *taken]):
            if tasks.get(other, {}).get("triggerPolicy", {}).get("condition"):
                yield (
                    name,
                    f"it waits for {other!r}, which has a condition, and is skipped with it",
                    "put it below the same condition",
                )


def _loops(pipeline: Pipeline) -> Found:
    for _, name, task in pipeline.tasks():
        if "artifactIterator" in task:
            yield name, "it loops over artifacts", "loop over a parameter"
        if "parameterIterator" in task:
            inner = pipeline.component(task).get("dag", {}).get("tasks", {})
            retried = [one for one in (task, *inner.values()) if "retryPolicy" in one]
            if retried:
                yield name, "it is a loop with tasks to be tried again, which KFP ignores", "unroll the loop"


def _exit_tasks(pipeline: Pipeline) -> Found:
    for name, dag in pipeline.dags():
        tasks = dag["dag"]["tasks"]
        exits = {key for key, task in tasks.items() if _is_exit(task)}
        if tasks and exits == set(tasks):
            yield name, "it has nothing but exit tasks", "add a task whose end they wait for"
        for key in sorted(exits):
            for other in tasks[key].get("dependentTasks", []):
                if "parameterIterator" in json.dumps(pipeline.component(tasks.get(other, {}))):
                    yield key, f"it waits for {other!r}, in which there is a loop", "unroll the loop"
                if _has_exit(pipeline, pipeline.component(tasks.get(other, {}))):
                    yield key, f"it waits for {other!r}, which has exit tasks of its own", "keep the outer one alone"


def _is_exit(task: Spec) -> bool:
    found: bool = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
    return found


def _has_exit(pipeline: Pipeline, component: Spec) -> bool:
    tasks = component.get("dag", {}).get("tasks", {}).values()
    return any(_is_exit(task) or _has_exit(pipeline, pipeline.component(task)) for task in tasks)


# The whole.


def _parameter_bytes(pipeline: Pipeline) -> Found:
    fields = _definitions(pipeline.spec["root"], "input", "Parameter")
    size = len(json.dumps({name: field.get("defaultValue", "") for name, field in fields.items()}))
    if size > MOST_PARAMETER_BYTES:
        yield (
            ROOT,
            f"the defaults of its parameters have {size} bytes; KFP takes {MOST_PARAMETER_BYTES}",
            "shorten them",
        )


def _root_artifacts(pipeline: Pipeline) -> Found:
    for name in _definitions(pipeline.spec["root"], "input", "Artifact"):
        yield ROOT, f"its input {name!r} is an artifact", "take an address as text"


def _definitions(component: Spec, side: str, kind: str) -> Spec:
    found: Spec = component.get(f"{side}Definitions", {}).get(f"{kind.lower()}s", {})
    return found


def _parameters(task: Spec) -> Spec:
    found: Spec = task.get("inputs", {}).get("parameters", {})
    return found


def _outputs_taken(task: Spec) -> Iterator[tuple[str, Spec]]:
    """Yield the outputs of other tasks that a task takes, each with its kind."""
    for kind in ("Parameter", "Artifact"):
        for source in task.get("inputs", {}).get(f"{kind.lower()}s", {}).values():
            if f"taskOutput{kind}" in source:
                yield kind, source[f"taskOutput{kind}"]


def _type(pipeline: Pipeline, dag: Spec, source: Spec) -> str | None:
    """Return the type of what an input is given, or None where it is not known."""
    if "componentInputParameter" in source:
        field = _definitions(dag, "input", "Parameter").get(source["componentInputParameter"], {})
    elif "taskOutputParameter" in source:
        taken = source["taskOutputParameter"]
        producer = pipeline.component(dag["dag"]["tasks"].get(taken["producerTask"], {}))
        field = _definitions(producer, "output", "Parameter").get(taken["outputParameterKey"], {})
    elif "constant" in source.get("runtimeValue", {}):
        return _constant_type(source["runtimeValue"]["constant"])
    else:
        return None
    found: str | None = field.get("parameterType")
    # An item of a loop has the type of the list's items, which the specification does not say.
    return None if "parameterExpressionSelector" in source else found


def _constant_type(value: Any) -> str:
    types = {bool: "BOOLEAN", int: "NUMBER_DOUBLE", float: "NUMBER_DOUBLE", str: "STRING", dict: "STRUCT", list: "LIST"}
    return types[type(value)]


def _texts(value: Any) -> str:
    """Return all texts in a value, joined."""
    if isinstance(value, str):
        return value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return "\n".join(map(_texts, inner))


def _platform_inputs(platform: Any) -> set[str]:
    """Return the inputs of the DAG that a pod's settings take."""
    return set(re.findall(r'"componentInputParameter": "([^"]+)"', json.dumps(platform)))


def _platform_kinds(platform: Spec) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the inputs of the DAG that a pod's settings take, with the types that the driver accepts for them."""
    for key, value in platform.items():
        types = {"nodeSelector": ("STRUCT",), "tolerations": ("STRUCT", "LIST"), "nodeAffinity": ("STRUCT",),
                 "podAffinity": ("STRUCT",)}.get(key, ("STRING",))  # fmt: skip
        for name in sorted(_platform_inputs(value)):
            yield name, types


def _whole_run(pipeline: Pipeline, dag: Spec, above: tuple[str, ...]) -> Iterator[tuple[str, Spec]]:
    """Yield every task of a run; those of a component that is used twice come twice."""
    for name, task in dag.get("dag", {}).get("tasks", {}).items():
        yield name, task
        reference = task.get("componentRef", {}).get("name", "")
        if reference not in above:
            yield from _whole_run(pipeline, pipeline.component(task), (*above, reference))


_SEEN = "seen on KFP 2.17"
RULES = (
    Rule("known component", "A task's component and its executor exist.", "compiler/argocompiler/dag.go",
         _unknown_component),
    Rule("producer in its DAG", "A task waits for, and takes outputs of, tasks of its own DAG only.",
         "compiler/argocompiler/dag.go", _unknown_producer),
    Rule("known input", "A task and its pod take inputs that the DAG has of the task.",
         f"driver/resolve.go, {_SEEN}", _unknown_input),
    Rule("given input", "Every input without a default is given.", "driver/resolve.go", _missing_input),
    Rule("resolvable value", "An input comes from its DAG, a task or a constant; a placeholder of the run is a "
         "constant by itself.", "driver/resolve.go", _resolvable_value),
    Rule("no absent value", "An optional parameter without a default is not passed on to a step that needs it.",
         "#11957", _absent_value),
    Rule("outputs of a DAG", "An output of a DAG comes from an output that exists; an artifact from one task alone, "
         "as the driver takes the last that is named, whichever ran.", "driver/resolve.go", _dag_output),
    Rule("one name, one task", "Every task has a name, and is shown under a name, that no other task of the run has: "
         "the UI finds tasks by name, and shows the last one for all.", _SEEN, _task_names),
    Rule("shown name", "A task whose outputs others take is shown under its own name.", "#10371", _shown_name),
    Rule("valid name", "Names of tasks and components are names in Kubernetes, and none that KFP itself uses.",
         "compiler/argocompiler/argo.go", _valid_names),
    Rule("importer's address", "An importer's address is a constant, or an input of the DAG that it is in.",
         _SEEN, _importer_address),
    Rule("importer's metadata", "An importer's metadata has no values that are known only in the run.",
         f"#7523, {_SEEN}", _importer_metadata),
    Rule("no importer", "No DAG has an importer: neither it nor the DAGs above it ever end in the UI.", _SEEN,
         _find_importers),
    Rule("container", "A step is a container with an image and a command.", "compiler/argocompiler/dag.go",
         _executor_kind),
    Rule("one container, one component", "Components of the same container have the same inputs and outputs: KFP "
         "keeps one description for each container.", "#10979", _one_container),
    Rule("no cache", "The cache is off for every task; `enable_caching=False` of a run does not reach nested ones.",
         "#10287", _cache),
    Rule("placeholder", "A container's placeholders name inputs of the task.", "driver/resolve.go", _placeholders),
    Rule("resources as text", "A parameter that sets a resource or an image is a text: of a number KFP reads an empty "
         "text, and drops the resource or fails.", "driver/resolve.go", _text_resources),
    Rule("settings of pods", "A parameter that names a secret is a text, and one of a node selector or of tolerations "
         "is a mapping or a list.", "driver/driver.go", _platform_types),
    Rule("types", "An input is given a value of its own type; a text takes all.", "driver/resolve.go", _types),
    Rule("condition's input", "A condition reads a parameter that is given to its task: the plain return value of a "
         "step, or an input.", "compiler/argocompiler/dag.go, kfp.local", _condition_input),
    Rule("nothing behind a condition", "No task waits for one that has a condition: it would be skipped with it.",
         "compiler/argocompiler/dag.go", _behind_condition),
    Rule("loops", "No loop over artifacts, and none with tasks to be tried again.", "#13897", _loops),
    Rule("exit tasks", "A DAG has a task beside its exit tasks; no exit task waits for a loop or for other exit tasks.",
         "#12390, compiler/argocompiler/dag.go", _exit_tasks),
    Rule("size of parameters", "The parameters have 10,000 bytes at most.", "#2286", _parameter_bytes),
    Rule("no artifact from outside", "The pipeline takes no artifacts.", "#9100", _root_artifacts),
)  # fmt: skip
