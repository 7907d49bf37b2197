"""The compiled pipeline: what a cluster would get, checked without one."""

import json
import re
from pathlib import Path

import pytest
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from oatflow.components.errors import RefusedInput, SettingsError
from oatflow.components.rounds.experiment import ExperimentSettings
from oatflow.components.rounds.form import FORM, MORE, fields_of, sections_of
from oatflow.pipelines.alignment.build import Build
from oatflow.pipelines.alignment.config import all_settings, gather
from oatflow.pipelines.alignment.form import form_arguments
from oatflow.pipelines.alignment.pipeline import compile_pipeline
from oatflow.pipelines.alignment.round import POD_FIELDS

GOLDEN = Path(__file__).parents[1] / "golden" / "alignment-2.yaml"
STEPS = ("open-round", "sample", "label", "train", "fit-reward-model", "evaluate", "close-round")
EXECUTORS = {*STEPS, "open-next-round"}
ONE = Build(train_backend="local", gpu=False, retries=0, image_pull_secrets=("pull",))
TYPES = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "BOOLEAN": bool, "STRUCT": dict, "LIST": list}


@pytest.fixture(scope="module")
def package(compiled):
    """The pipeline of two rounds."""
    return compiled(2)


def groups(spec):
    """Every DAG of the pipeline with the inputs that it has: the root, the rounds, and what is below conditions."""
    for name, component in {"root": spec["root"], **spec["components"]}.items():
        if "dag" in component:
            yield name, component, set(component.get("inputDefinitions", {}).get("parameters", {}))


def tasks(spec):
    return {name: task for _, component, _ in groups(spec) for name, task in component["dag"]["tasks"].items()}


def in_round(number, names=STEPS):
    """Names that tasks have in a round of the run, the first being 1."""
    return {name if number == 1 else f"{name}-{number}" for name in names}


def test_the_compiled_pipeline_is_the_golden_one_byte_for_byte(package):
    # After a change that is meant: oatflow compile --rounds 2 --out tests/golden/alignment-2.yaml
    assert package.path.read_bytes() == GOLDEN.read_bytes()


def test_compiling_twice_gives_the_same_bytes(package, compile_apart, tmp_path):
    compile_apart(2, tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == package.path.read_bytes()


@pytest.mark.parametrize("build", [Build(), ONE], ids=["cluster", "one"])
def test_it_parses_strictly_as_what_kfp_and_its_kubernetes_extension_define(compiled, build):
    spec, platform = compiled(2, build).spec, compiled(2, build).platform
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_ten_rounds_stay_below_300_kilobytes(compiled):
    assert compiled(10).path.stat().st_size < 300_000


def test_a_single_round_stands_in_the_pipeline_itself(compiled):
    spec = compiled(1).spec
    assert set(spec["root"]["dag"]["tasks"]) == {"open-round", "condition-1"}
    assert set(tasks(spec)) == {*STEPS, "condition-1", "condition-2"}


def test_rounds_run_one_after_the_other(compiled):
    spec = compiled(10).spec
    names = ["round", *(f"round-{number}" for number in range(2, 11))]
    after = {name: task.get("dependentTasks", []) for name, task in spec["root"]["dag"]["tasks"].items()}
    assert after == {name: names[:place][-1:] for place, name in enumerate(names)}


def test_every_task_of_a_run_is_named_after_its_round_and_shown_so(compiled):
    """KFP's UI finds tasks by name within the whole run, and would show the last round's report for all."""
    spec = compiled(3).spec
    names = [name for _, component, _ in groups(spec) for name in component["dag"]["tasks"]]
    everything = ("round", "condition-1", "condition-2", *STEPS)
    assert sorted(names) == sorted(set().union(*(in_round(number, everything) for number in (1, 2, 3))))
    shown = {name: task["taskInfo"]["name"] for name, task in tasks(spec).items()}
    assert (shown["condition-1"], shown["condition-2-3"]) == ("budget-left", "labelled-3")
    assert all(shown[name] == name for name in shown if not name.startswith("condition"))


def test_rounds_have_dags_of_their_own_and_share_their_steps(compiled):
    spec = compiled(3).spec
    components = [task["componentRef"]["name"] for task in tasks(spec).values()]
    dags = [name for name in components if "dag" in spec["components"][name]]
    assert len(dags) == len(set(dags)) == 9
    assert {name.removeprefix("comp-") for name in set(components) - set(dags)} == EXECUTORS
    assert set(spec["components"]) == set(components)


def test_a_later_round_takes_only_what_its_pods_need(compiled):
    """The settings are in the ledger by then; each input is held many times by the object that Kubernetes keeps."""
    spec = compiled(2).spec
    first, second = (
        set(spec["components"][name]["inputDefinitions"]["parameters"]) for name in ("comp-round", "comp-round-2")
    )
    assert first == {"run", "ledger", MORE, *FORM}
    assert second == {"run", "ledger", *POD_FIELDS}
    opened = tasks(spec)["open-round-2"]["inputs"]["parameters"]
    assert {name for name in opened if not name.startswith("pipelinechannel--")} == {"ledger", "run"}


def test_no_task_is_ever_cached(package):
    found = tasks(package.spec)
    assert found.keys() >= {"round", "round-2", *in_round(1), *in_round(2)}
    for name, task in found.items():
        if not name.startswith("condition"):
            assert not task.get("cachingOptions", {}).get("enableCache"), name


def test_every_input_that_a_task_takes_from_its_pipeline_is_one_that_the_pipeline_has(package):
    """KFP forgets, below a condition, the parameters that only a resource or a secret needs."""
    spec, kubernetes = package.spec, package.kubernetes
    for group, component, inputs in groups(spec):
        for name, task in component["dag"]["tasks"].items():
            executor = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            needed = json.dumps([task.get("inputs", {}), kubernetes.get(executor, {})])
            wanted = set(re.findall(r'"componentInputParameter": "([^"]+)"', needed))
            assert wanted <= inputs, (group, name)
            own = set(task.get("inputs", {}).get("parameters", {}))
            container = json.dumps(spec["deploymentSpec"]["executors"].get(executor, {}).get("container", {}))
            assert set(re.findall(r"inputs\.parameters\['([^']+)'\]", container)) <= own, (group, name)


def test_every_step_has_an_image_with_a_version_and_installs_nothing(package):
    for name, executor in package.spec["deploymentSpec"]["executors"].items():
        if "container" in executor:
            image = executor["container"]["image"]
            assert re.fullmatch(r"ghcr\.io/oatflow/\w+:\d+\.\d+\.\d+", image), name
            assert "pip install" not in "".join(executor["container"]["command"]), name


def test_every_step_has_limits_a_deadline_and_does_not_run_as_root(package):
    spec, kubernetes = package.spec, package.kubernetes
    assert {name.removeprefix("exec-") for name in kubernetes} == EXECUTORS
    for name, told in kubernetes.items():
        resources = spec["deploymentSpec"]["executors"][name]["container"]["resources"]
        assert resources["resourceCpuLimit"] and resources["resourceMemoryLimit"], name
        assert int(told["activeDeadlineSeconds"]) > 0, name
        assert told["securityContext"] == {"runAsNonRoot": True}, name


def test_a_pod_that_fails_is_replaced_a_bounded_number_of_times(package):
    steps = in_round(1) | in_round(2)
    assert {tasks(package.spec)[step]["retryPolicy"]["maxRetryCount"] for step in steps} == {2}


def resources(spec, step):
    """What a step requests and may use, by the fields of the form that it comes from."""
    found = spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]["resources"]
    return {name: re.search(r"--(\w+)'", found[name])[1] for name in found if name != "accelerator"}


def test_light_steps_request_little(package):
    for step in ("open-round", "open-next-round", "train", "fit-reward-model", "close-round"):
        assert resources(package.spec, step) == {
            "resourceCpuLimit": "light_cpu", "resourceMemoryLimit": "light_memory",
            "resourceCpuRequest": "light_cpu_request", "resourceMemoryRequest": "light_memory_request",
        }, step  # fmt: skip
    fields = package.spec["root"]["inputDefinitions"]["parameters"]
    assert [fields[name]["defaultValue"] for name in ("light_cpu_request", "light_memory_request")] == ["100m", "512Mi"]
    assert [fields[name]["defaultValue"] for name in ("light_cpu", "light_memory")] == ["1", "4Gi"]


@pytest.mark.parametrize(("limit", "request_"), [("1", "1500m"), ("0.5", "1")])
def test_a_step_cannot_request_more_cores_than_it_may_use(limit, request_):
    with pytest.raises(SettingsError, match=r"resources\.light_cpu_request='.*': more than resources\.light_cpu="):
        gather("reviews", None, {"light_cpu": limit, "light_cpu_request": request_})


@pytest.mark.parametrize(("limit", "request_"), [("1Gi", "1025Mi"), ("1G", "1Gi"), ("512Ki", "1M")])
def test_a_step_cannot_request_more_memory_than_it_may_use(limit, request_):
    with pytest.raises(SettingsError, match=f"light_memory_request='{request_}': more than .*light_memory='{limit}'"):
        gather("reviews", None, {"light_memory": limit, "light_memory_request": request_})


def test_a_request_may_be_all_that_a_step_may_use():
    assert gather("reviews", None, {"light_memory": "1Gi", "light_memory_request": "1024Mi"}).resources


ASKING = {"exec-open-round", "exec-open-next-round", "exec-label", "exec-evaluate"}
TRACKING_KEYS = ("WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN")
ORACLE_KEYS = ("OATFLOW_ORACLE_TOKEN", "OATFLOW_JUDGE_KEY", "OPENAI_API_KEY")


def test_every_secret_is_a_reference_that_the_form_names(package):
    spec, kubernetes = package.spec, package.kubernetes
    for name, told in kubernetes.items():
        variables = {}
        for secret in told["secretAsEnv"]:
            source = secret["secretNameParameter"]["componentInputParameter"].removeprefix("pipelinechannel--")
            variables |= {pair["envVar"]: (source, secret["optional"]) for pair in secret["keyToEnv"]}
        assert variables == {
            "AWS_ACCESS_KEY_ID": ("s3_secret", False),
            "AWS_SECRET_ACCESS_KEY": ("s3_secret", False),
            "HF_TOKEN": ("keys_secret", True),
            **(dict.fromkeys(ORACLE_KEYS, ("keys_secret", True)) if name in ASKING else {}),
            **(dict.fromkeys(TRACKING_KEYS, ("keys_secret", True)) if name == "exec-close-round" else {}),
        }, name
    assert not [e for e in spec["deploymentSpec"]["executors"].values() if e.get("container", {}).get("env")]


def test_the_steps_that_deal_with_jobs_know_which_pod_they_are(package):
    knows = {name for name, told in package.kubernetes.items() if "fieldPathAsEnv" in told}
    assert knows == {"exec-open-round", "exec-open-next-round", "exec-train"}


def test_gpus_are_asked_for_by_text_as_kfp_drops_numbers(package):
    parameters = package.spec["root"]["inputDefinitions"]["parameters"]
    for name in ("sampler_gpus", "oracle_gpus", "sampler_cpu", "sampler_memory", "train_pod_cpu", "train_pod_memory"):
        assert parameters[name]["parameterType"] == "STRING", name


def producer(source):
    """Whose artifact this is; one from outside the condition is named by its producer."""
    if "taskOutputArtifact" in source:
        return source["taskOutputArtifact"]["producerTask"]
    return source["componentInputArtifact"].removeprefix("pipelinechannel--").rpartition("-")[0]


@pytest.mark.parametrize(("condition", "expected"), [
    ("condition-1", "int(inputs.parameter_values['pipelinechannel--open-round-Output']) >= 0"),
    ("condition-2", "int(inputs.parameter_values['pipelinechannel--label-Output']) == 1"),
    ("condition-1-2", "int(inputs.parameter_values['pipelinechannel--open-round-2-Output']) >= 0"),
    ("condition-2-2", "int(inputs.parameter_values['pipelinechannel--label-2-Output']) == 1"),
])  # fmt: skip
def test_a_round_goes_on_only_when_it_is_open_and_its_duels_are_labelled(package, condition, expected):
    assert tasks(package.spec)[condition]["triggerPolicy"]["condition"] == expected


@pytest.mark.parametrize("number", [1, 2])
def test_the_graph_is_the_way_the_data_goes(package, number):
    comes_from = {
        (producer(source), name)
        for name, task in tasks(package.spec).items()
        for source in task.get("inputs", {}).get("artifacts", {}).values()
        if name in in_round(number)
    }
    edges = (
        ("sample", "label"), ("label", "train"), ("train", "evaluate"), ("train", "close-round"),
        ("evaluate", "close-round"), ("label", "fit-reward-model"), ("fit-reward-model", "evaluate"),
    )  # fmt: skip
    end = "" if number == 1 else f"-{number}"
    assert comes_from == {(first + end, then + end) for first, then in edges}


def test_nothing_is_imported(package):
    """An importer's DAG never ends in KFP: the policy's address is in the metadata of what `train` writes."""
    assert all("container" in executor for executor in package.spec["deploymentSpec"]["executors"].values())


@pytest.mark.parametrize("rounds", [0, 11])
def test_a_number_of_rounds_that_cannot_be_unrolled_is_refused(rounds, tmp_path):
    with pytest.raises(SettingsError, match=f"rounds={rounds}"):
        compile_pipeline(rounds, tmp_path / "p.yaml")


def test_a_file_that_cannot_be_written_is_refused_by_name(compile_apart, tmp_path):
    with pytest.raises(RefusedInput, match=r"out='.*/missing/p.yaml': cannot be written .*; name a file"):
        compile_apart(1, tmp_path / "missing" / "p.yaml")


# The form.


def test_the_form_asks_for_what_nobody_can_guess_and_fills_in_the_rest(package):
    parameters = package.spec["root"]["inputDefinitions"]["parameters"]
    required = {name for name, field in parameters.items() if not field.get("isOptional")}
    assert required == {"ledger", "prompt_data", "pretrain"}
    differ = {"train_backend": "pytorchjob", "train_pod_gpus": "1"}
    for setting in all_settings():
        if setting.name in FORM and setting.name not in required:
            expected = differ.get(setting.name, "" if setting.default is None else setting.default)
            assert parameters[setting.name]["defaultValue"] == expected, setting.name


def test_every_field_says_what_it_is_and_which_values_it_takes(package):
    parameters = package.spec["root"]["inputDefinitions"]["parameters"]
    assert all(len(field["description"]) > 20 for field in parameters.values())
    assert "One of: local, pytorchjob, trainjob." in parameters["train_backend"]["description"]


def test_the_fields_are_the_settings_under_their_own_names_and_types(package):
    parameters = package.spec["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == {"ledger", MORE, *FORM}
    names = [setting.name for setting in all_settings()]
    assert len(names) == len(set(names)), "a field has one setting"
    for name, value in form_arguments("s3://b/p", gather("reviews", None, {})).items():
        assert type(value) in (TYPES[parameters[name]["parameterType"]], int), name


def test_a_filled_in_form_says_the_same_as_the_settings_it_was_made_from():
    settings = gather("reviews", None, {"l2": "0.25", "seed": "3", "output_key": "answer", "max_model_len": "256"})
    assert ExperimentSettings.parse(sections_of(fields_of(settings.model_dump(mode="json")))) == settings
    assert fields_of(settings.model_dump(mode="json"))[MORE]["policy"]["l2"] == 0.25


def test_a_preference_set_and_no_measurement_can_be_said_in_the_form():
    settings = gather("offline", None, {})
    fields = fields_of(settings.model_dump(mode="json"))
    assert (fields["chosen_key"], fields["rejected_key"], fields["eval_every"]) == ("chosen", "rejected", 0)
    assert ExperimentSettings.parse(sections_of(fields)) == settings
    online = fields_of(gather("reviews", None, {}).model_dump(mode="json"))
    assert (online["chosen_key"], online["rejected_key"]) == ("", "")
    assert not ExperimentSettings.parse(sections_of(online)).prompts.offline


def test_a_setting_given_in_its_field_and_beside_it_is_refused():
    with pytest.raises(SettingsError, match=r"more_settings: policy\.beta: has a field of its own"):
        sections_of({"beta": 0.1, MORE: {"policy": {"beta": 0.2}}})


def test_all_parameters_fit_into_what_kfp_takes():
    arguments = form_arguments("s3://bucket/private/team/oatflow/demo", gather("reviews", None, {}))
    assert len(json.dumps(arguments)) < 10_000


# What is decided at compile time.


def test_a_train_step_that_trains_by_itself_has_the_trainers_image_and_resources(compiled):
    spec = compiled(1, ONE).spec
    container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["image"] == "ghcr.io/oatflow/trainer:0.1.0-cpu"
    assert (
        container["resources"]["resourceMemoryLimit"] == "{{$.inputs.parameters['pipelinechannel--train_pod_memory']}}"
    )
    assert spec["root"]["inputDefinitions"]["parameters"]["train_backend"]["defaultValue"] == "local"


def test_images_may_come_from_a_registry_of_ones_own(compiled):
    made = compiled(1, Build(registry="registry.example:5000/team", image_pull_secrets=("pull",)))
    spec, kubernetes = made.spec, made.kubernetes
    images = {e["container"]["image"] for e in spec["deploymentSpec"]["executors"].values() if "container" in e}
    assert images == {f"registry.example:5000/team/{name}:0.1.0" for name in ("control", "sampler", "oracle")}
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["train_image"]["defaultValue"] == "registry.example:5000/team/trainer:0.1.0"
    assert all(told["imagePullSecret"][0]["secretNameParameter"] for told in kubernetes.values())
