"""Compiled pipelines against what KFP's backend asks of them; each rule with a small pipeline that breaks it."""

import copy
from pathlib import Path

import pytest
import yaml
from oatflow.pipelines.alignment import round as rounds_module
from oatflow.pipelines.alignment.backend_rules import RULES, PipelineRefused, check_backend_rules, find_breaches
from oatflow.pipelines.alignment.build import Build

REFUSED = Path(__file__).parent / "refused-by-kfp"


def read(path):
    spec, platform = yaml.load_all(Path(path).read_text(), yaml.CSafeLoader)
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


# The pipeline of commit 9449262, with which no run could succeed.


def test_the_pipeline_that_failed_on_a_cluster_is_refused_for_its_importer():
    found = find_breaches(*read(REFUSED / "alignment-9449262-one-round.yaml"))
    assert {(breach.rule, breach.place) for breach in found} == {
        ("importer's address", "importer"),
        ("importer's metadata", "importer"),
        ("no importer", "importer"),
    }
    (address,) = [str(breach) for breach in found if breach.rule == "importer's address"]
    assert "comes from 'train'" in address and "give a constant, or an input of the DAG" in address


def test_its_second_round_had_the_task_names_of_the_first():
    found = find_breaches(*read(REFUSED / "alignment-9449262-two-rounds.yaml"))
    twice = {breach.place for breach in found if breach.rule == "one name, one task"}
    assert twice >= {"open-round", "sample", "label", "train", "fit-reward-model", "evaluate", "close-round"}
    assert twice >= {"condition-1", "condition-2", "budget-left", "labelled"}


def test_the_error_is_one_line_that_names_task_rule_and_remedy():
    with pytest.raises(PipelineRefused) as refused:
        check_backend_rules(*read(REFUSED / "alignment-9449262-one-round.yaml"))
    text = str(refused.value)
    assert text.startswith("importer: breaks ") and "; give " in text and text.endswith("(and 2 more)")
    assert "\n" not in text


# What we compile.

BUILDS = [
    Build(), Build(gpu=False), Build(train_backend="trainjob"),
    Build(train_backend="local", gpu=False, retries=0, image_pull_secrets=("pull",)),
    Build(train_backend="local"), Build(registry="registry.example:5000/team", image_pull_secrets=("pull", "other")),
]  # fmt: skip


def compiled_cases():
    """Every build with one to three rounds; compiling takes seconds, so all but two of them are slow."""
    quick = [(BUILDS[0], 2), (BUILDS[3], 1)]
    for build in BUILDS:
        for rounds in (1, 2, 3):
            marks = [] if (build, rounds) in quick else pytest.mark.slow
            yield pytest.param(rounds, build, marks=marks, id=f"{build}-{rounds}")


@pytest.mark.parametrize(("rounds", "build"), list(compiled_cases()))
def test_every_pipeline_that_we_compile_breaks_no_rule(rounds, build, compiled):
    package = compiled(rounds, build)
    assert find_breaches(package.spec, package.kubernetes) == []


def test_a_pipeline_that_breaks_a_rule_is_not_compiled(compile_apart, tmp_path, monkeypatch):
    monkeypatch.setattr(rounds_module, "disable_cache", lambda task: task)
    with pytest.raises(PipelineRefused, match=r"breaks 'no cache': .*; switch it off for the task"):
        compile_apart(1, tmp_path / "pipeline.yaml")
    assert list(tmp_path.iterdir()) == []


# One small pipeline, and for each rule what breaks it.


def text(**more):
    return {"parameterType": "STRING", **more}


NUMBER = {"parameterType": "NUMBER_INTEGER"}


def step(name, inputs=(), outputs=()):
    return {
        "executorLabel": f"exec-{name}",
        "inputDefinitions": {"parameters": {key: text() for key in inputs}},
        "outputDefinitions": {"parameters": dict.fromkeys(outputs, NUMBER)},
    }


def task(component, given=None, **more):
    return {
        "componentRef": {"name": f"comp-{component}"}, "cachingOptions": {}, "taskInfo": {"name": component},
        "inputs": {"parameters": given or {}}, **more,
    }  # fmt: skip


def container(name, **more):
    return {"container": {"image": "image:1", "command": ["run", name], **more}}


def taken(producer, key="Output"):
    return {"taskOutputParameter": {"producerTask": producer, "outputParameterKey": key}}


def sound():
    """A step that counts, and below a condition on it a step whose pod has what a parameter says."""
    inner = {
        "dag": {"tasks": {"work": task("work", {"cores": {"componentInputParameter": "cores"}})}},
        "inputDefinitions": {"parameters": {"cores": text(), "secret": text(), "count": NUMBER}},
    }  # fmt: skip
    outer = {"cores": {"componentInputParameter": "cores"}, "secret": {"componentInputParameter": "secret"},
             "count": taken("count")}  # fmt: skip
    condition = "int(inputs.parameter_values['count']) >= 0"
    spec = {
        "root": {
            "dag": {"tasks": {"count": task("count"), "if": task("if", outer, triggerPolicy={"condition": condition})}},
            "inputDefinitions": {"parameters": {"cores": text(defaultValue="1"), "secret": text(defaultValue="keys")}},
        },
        "components": {"comp-count": step("count", outputs=["Output", "share"]), "comp-if": inner,
                       "comp-work": step("work", inputs=["cores"])},
        "deploymentSpec": {"executors": {
            "exec-count": container("count"),
            "exec-work": container("work", resources={"resourceCpuLimit": "{{$.inputs.parameters['cores']}}"}),
        }},
    }  # fmt: skip
    return spec, {"exec-work": {"secretAsEnv": [{"secretNameParameter": {"componentInputParameter": "secret"}}]}}


def tasks(spec, component="root"):
    return (spec["root"] if component == "root" else spec["components"][component])["dag"]["tasks"]


def add_importer(spec, given, **importer):
    spec["components"]["comp-importer"] = step("importer", inputs=["uri"])
    spec["deploymentSpec"]["executors"]["exec-importer"] = {
        "importer": {"artifactUri": {"runtimeParameter": "uri"}, **importer}
    }
    tasks(spec)["importer"] = task("importer", {"uri": given})


def component_that_is_missing(spec, kubernetes):
    del spec["components"]["comp-work"]


def executor_that_is_missing(spec, kubernetes):
    del spec["deploymentSpec"]["executors"]["exec-work"]


def output_of_a_task_elsewhere(spec, kubernetes):
    tasks(spec, "comp-if")["work"]["inputs"]["parameters"]["cores"] = taken("count")


def wait_for_a_task_elsewhere(spec, kubernetes):
    tasks(spec, "comp-if")["work"]["dependentTasks"] = ["count"]


def output_that_does_not_exist(spec, kubernetes):
    tasks(spec)["if"]["inputs"]["parameters"]["count"] = taken("count", "total")


def input_that_the_dag_lacks(spec, kubernetes):
    del spec["components"]["comp-if"]["inputDefinitions"]["parameters"]["cores"]


def secret_that_the_dag_lacks(spec, kubernetes):
    del spec["components"]["comp-if"]["inputDefinitions"]["parameters"]["secret"]


def input_that_is_not_given(spec, kubernetes):
    spec["components"]["comp-count"] = step("count", inputs=["folder"], outputs=["Output"])


def value_that_the_driver_does_not_resolve(spec, kubernetes):
    tasks(spec)["if"]["inputs"]["parameters"]["cores"] = {"runtimeValue": {"runtimeParameter": "cores"}}


def name_of_the_run_within_a_text(spec, kubernetes):
    constant = "run {{$.pipeline_job_uuid}}"
    tasks(spec)["if"]["inputs"]["parameters"]["secret"] = {"runtimeValue": {"constant": constant}}


def optional_value_for_a_step_that_needs_it(spec, kubernetes):
    spec["root"]["inputDefinitions"]["parameters"]["cores"] = text(isOptional=True)


def output_of_one_of_two_tasks(spec, kubernetes):
    for name in ("count", "count-again"):
        tasks(spec)[name] = task("count")
    tasks(spec)["count-again"]["taskInfo"]["name"] = "count-again"
    spec["components"]["comp-count"]["outputDefinitions"]["artifacts"] = {"table": {}}
    selectors = [{"producerSubtask": name, "outputArtifactKey": "table"} for name in ("count", "count-again")]
    spec["root"]["dag"]["outputs"] = {"artifacts": {"table": {"artifactSelectors": selectors}}}


def output_of_a_dag_from_nowhere(spec, kubernetes):
    selector = {"producerSubtask": "count", "outputParameterKey": "total"}
    spec["root"]["dag"]["outputs"] = {"parameters": {"total": {"valueFromParameter": selector}}}


def dag_that_is_used_twice(spec, kubernetes):
    again = copy.deepcopy(tasks(spec)["if"])
    again["taskInfo"]["name"] = "if-2"
    tasks(spec)["if-2"] = again


def two_tasks_shown_alike(spec, kubernetes):
    tasks(spec)["if"]["taskInfo"]["name"] = "work"


def producer_shown_under_another_name(spec, kubernetes):
    tasks(spec)["count"]["taskInfo"]["name"] = "Count all"


def name_that_kubernetes_refuses(spec, kubernetes):
    tasks(spec)["Close_Round"] = task("count")
    tasks(spec)["Close_Round"]["taskInfo"]["name"] = "Close_Round"


def name_of_another_tasks_driver(spec, kubernetes):
    tasks(spec)["count-driver"] = task("count")
    tasks(spec)["count-driver"]["taskInfo"]["name"] = "count-driver"


def component_named_like_a_template_of_kfp(spec, kubernetes):
    spec["components"]["system-dag-driver"] = spec["components"]["comp-count"]


def importer_of_a_tasks_output(spec, kubernetes):
    add_importer(spec, taken("count"))


def importer_that_describes_the_run(spec, kubernetes):
    add_importer(spec, {"componentInputParameter": "secret"}, metadata={"round": "{{$.inputs.parameters['round']}}"})


def importer_of_an_input(spec, kubernetes):
    add_importer(spec, {"componentInputParameter": "secret"})


def step_that_is_no_container(spec, kubernetes):
    spec["deploymentSpec"]["executors"]["exec-count"] = {"customJob": {}}


def container_without_an_image(spec, kubernetes):
    spec["deploymentSpec"]["executors"]["exec-count"]["container"]["image"] = ""


def container_without_a_command(spec, kubernetes):
    spec["deploymentSpec"]["executors"]["exec-count"]["container"]["command"] = []


def two_components_of_one_container(spec, kubernetes):
    spec["deploymentSpec"]["executors"]["exec-count"] = spec["deploymentSpec"]["executors"]["exec-work"]


def cache_left_on(spec, kubernetes):
    tasks(spec, "comp-if")["work"]["cachingOptions"] = {"enableCache": True}


def placeholder_of_nothing(spec, kubernetes):
    spec["deploymentSpec"]["executors"]["exec-count"]["container"]["args"] = ["{{$.inputs.parameters['seed']}}"]


def number_as_a_resource(spec, kubernetes):
    for component in (spec["root"], spec["components"]["comp-if"]):
        component["inputDefinitions"]["parameters"]["cores"] = {"parameterType": "NUMBER_INTEGER", "defaultValue": 1}


def number_as_a_count_of_gpus(spec, kubernetes):
    number_as_a_resource(spec, kubernetes)
    resources = {"accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "{{$.inputs.parameters['cores']}}"}}
    spec["deploymentSpec"]["executors"]["exec-work"]["container"]["resources"] = resources


def mapping_as_a_secret(spec, kubernetes):
    for component in (spec["root"], spec["components"]["comp-if"]):
        component["inputDefinitions"]["parameters"]["secret"] = {"parameterType": "STRUCT", "defaultValue": {}}


def text_as_tolerations(spec, kubernetes):
    kubernetes["exec-work"] = {"tolerations": [{"tolerationJson": {"componentInputParameter": "secret"}}]}


def text_for_a_number(spec, kubernetes):
    tasks(spec)["if"]["inputs"]["parameters"]["count"] = {"componentInputParameter": "cores"}


def constant_text_for_a_number(spec, kubernetes):
    tasks(spec)["if"]["inputs"]["parameters"]["count"] = {"runtimeValue": {"constant": "one"}}


def condition_on_what_is_not_given(spec, kubernetes):
    tasks(spec)["if"]["triggerPolicy"]["condition"] = "inputs.parameter_values['share'] > 0.5"


def condition_on_a_named_output(spec, kubernetes):
    tasks(spec)["if"]["inputs"]["parameters"]["count"] = taken("count", "share")


def step_after_a_condition(spec, kubernetes):
    tasks(spec)["last"] = task("count", dependentTasks=["if"])
    tasks(spec)["last"]["taskInfo"]["name"] = "last"


def loop_that_is_tried_again(spec, kubernetes):
    tasks(spec)["if"]["parameterIterator"] = {"itemInput": "count", "items": {"raw": "[1, 2]"}}
    tasks(spec, "comp-if")["work"]["retryPolicy"] = {"maxRetryCount": 2}


def loop_over_artifacts(spec, kubernetes):
    tasks(spec)["if"]["artifactIterator"] = {"itemInput": "table"}


END = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def dag_of_exit_tasks_alone(spec, kubernetes):
    tasks(spec, "comp-if")["work"]["triggerPolicy"] = END


def exit_tasks_within_each_other(spec, kubernetes):
    tasks(spec, "comp-if")["end"] = task("count", triggerPolicy=END)
    tasks(spec, "comp-if")["end"]["taskInfo"]["name"] = "end"
    tasks(spec)["last"] = task("count", dependentTasks=["if"], triggerPolicy=END)
    tasks(spec)["last"]["taskInfo"]["name"] = "last"


def exit_task_of_a_loop(spec, kubernetes):
    tasks(spec, "comp-if")["work"]["parameterIterator"] = {"itemInput": "cores", "items": {"raw": "[1, 2]"}}
    tasks(spec)["last"] = task("count", dependentTasks=["if"], triggerPolicy=END)
    tasks(spec)["last"]["taskInfo"]["name"] = "last"


def form_of_more_than_10_000_bytes(spec, kubernetes):
    spec["root"]["inputDefinitions"]["parameters"]["secret"]["defaultValue"] = "x" * 10_000


def artifact_from_outside(spec, kubernetes):
    spec["root"]["inputDefinitions"]["artifacts"] = {"model": {}}


BROKEN = [
    ("known component", "work", component_that_is_missing),
    ("known component", "work", executor_that_is_missing),
    ("producer in its DAG", "work", output_of_a_task_elsewhere),
    ("producer in its DAG", "work", wait_for_a_task_elsewhere),
    ("producer in its DAG", "if", output_that_does_not_exist),
    ("known input", "work", input_that_the_dag_lacks),
    ("known input", "work", secret_that_the_dag_lacks),
    ("given input", "count", input_that_is_not_given),
    ("resolvable value", "if", value_that_the_driver_does_not_resolve),
    ("resolvable value", "if", name_of_the_run_within_a_text),
    ("no absent value", "if", optional_value_for_a_step_that_needs_it),
    ("outputs of a DAG", "root", output_of_one_of_two_tasks),
    ("outputs of a DAG", "root", output_of_a_dag_from_nowhere),
    ("one name, one task", "work", dag_that_is_used_twice),
    ("one name, one task", "work", two_tasks_shown_alike),
    ("shown name", "count", producer_shown_under_another_name),
    ("valid name", "Close_Round", name_that_kubernetes_refuses),
    ("valid name", "count-driver", name_of_another_tasks_driver),
    ("valid name", "system-dag-driver", component_named_like_a_template_of_kfp),
    ("importer's address", "importer", importer_of_a_tasks_output),
    ("importer's metadata", "importer", importer_that_describes_the_run),
    ("no importer", "importer", importer_of_an_input),
    ("container", "count", step_that_is_no_container),
    ("container", "count", container_without_an_image),
    ("container", "count", container_without_a_command),
    ("one container, one component", "comp-work", two_components_of_one_container),
    ("no cache", "work", cache_left_on),
    ("placeholder", "count", placeholder_of_nothing),
    ("resources as text", "work", number_as_a_resource),
    ("resources as text", "work", number_as_a_count_of_gpus),
    ("settings of pods", "work", mapping_as_a_secret),
    ("settings of pods", "work", text_as_tolerations),
    ("types", "if", text_for_a_number),
    ("types", "if", constant_text_for_a_number),
    ("condition's input", "if", condition_on_what_is_not_given),
    ("condition's input", "if", condition_on_a_named_output),
    ("nothing behind a condition", "last", step_after_a_condition),
    ("loops", "if", loop_that_is_tried_again),
    ("loops", "if", loop_over_artifacts),
    ("exit tasks", "comp-if", dag_of_exit_tasks_alone),
    ("exit tasks", "last", exit_tasks_within_each_other),
    ("exit tasks", "last", exit_task_of_a_loop),
    ("size of parameters", "root", form_of_more_than_10_000_bytes),
    ("no artifact from outside", "root", artifact_from_outside),
]


def test_the_small_pipeline_breaks_no_rule():
    assert find_breaches(*sound()) == []


@pytest.mark.parametrize(("rule", "place", "broken"), BROKEN, ids=lambda part: getattr(part, "__name__", ""))
def test_a_pipeline_that_breaks_a_rule_is_found(rule, place, broken):
    spec, kubernetes = sound()
    broken(spec, kubernetes)
    found = find_breaches(spec, kubernetes)
    assert (rule, place) in {(breach.rule, breach.place) for breach in found}, list(map(str, found))


def test_every_rule_has_a_sentence_a_source_and_a_pipeline_that_breaks_it():
    assert {rule.name for rule in RULES} == {rule for rule, _, _ in BROKEN}
    assert all(rule.sentence.endswith(".") and rule.source for rule in RULES)
