"""One round of online alignment: its steps in the order of the data, and what their pods get."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from kfp import dsl, kubernetes
from oatflow.components.evaluation.component import evaluate
from oatflow.components.labeling.component import label
from oatflow.components.policy.component import train
from oatflow.components.reward_model.component import fit_reward_model
from oatflow.components.rounds.component import close_round, open_next_round, open_round
from oatflow.components.sampling.component import sample

from .build import Build
from .form import field_types

HOUR = 3600
S3_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
ORACLE_KEYS = ("OATFLOW_ORACLE_TOKEN", "OATFLOW_JUDGE_KEY", "OPENAI_API_KEY")
TRACKING_KEYS = ("WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN")
# Settings of the place that are no secrets; the config map need not exist.
PLACE = "oatflow-config"
PLACE_VARIABLES = ("AWS_REGION", "HF_ENDPOINT", "HF_HUB_OFFLINE", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI")
# A round after the first of its run needs no other fields of the form: the ledger has the settings by then.
POD_FIELDS = (
    "s3_secret", "keys_secret", "gpu_resource",
    "sampler_gpus", "sampler_cpu", "sampler_memory", "sampler_node_selector", "sampler_tolerations",
    "oracle_gpus", "oracle_cpu", "oracle_memory",
    "light_cpu", "light_memory", "light_cpu_request", "light_memory_request",
)  # fmt: skip
TRAIN_POD_FIELDS = (
    "train_pod_cpu", "train_pod_memory", "train_pod_gpus", "train_node_selector", "train_tolerations"
)  # fmt: skip
Channels = dict[str, Any]


def pod_fields(build: Build) -> tuple[str, ...]:
    """Return the fields of the form that the pods of a round are made of."""
    return (*POD_FIELDS, *(TRAIN_POD_FIELDS if build.trains_in_step else ()))


def disable_cache(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Switch KFP's cache off: a step is repeated or adopted as the ledger says, not as equal inputs suggest."""
    return task.set_caching_options(False)


def first_round(build: Build) -> Any:
    """Return the pipeline of a run's first round: it takes the whole form."""
    return _nest_round(
        lambda ledger, run, form: play_first_round(ledger, run, form, build), field_types(build.defaults())
    )


def later_round(build: Build) -> Any:
    """Return the pipeline of a round after the first of its run."""
    types = field_types(build.defaults())
    return _nest_round(
        lambda ledger, run, form: _play_later_round(ledger, run, form, build),
        {name: types[name] for name in pod_fields(build)},
    )


def play_first_round(ledger: Any, run: Any, form: Channels, build: Build) -> None:
    """Put the steps of a run's first round into the pipeline that is being defined."""
    _play_round(open_round(ledger=ledger, run=run, **form), ledger, run, form, build)


def _play_later_round(ledger: Any, run: Any, form: Channels, build: Build) -> None:
    _play_round(open_next_round(ledger=ledger, run=run), ledger, run, form, build)


def _nest_round(play: Any, types: dict[str, type]) -> Any:
    """Return a nested pipeline. Its fields have no defaults and no descriptions, as every copy of it would hold them.

    Both kinds of rounds have the same name, so that KFP numbers them: round, round-2.
    """
    names = ["ledger", "run", *types]

    def round_(*values: Any) -> None:
        given = dict(zip(names, values, strict=True))
        play(given.pop("ledger"), given.pop("run"), given)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    round_.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind, annotation=types.get(name, str)) for name in names]
    )
    return dsl.pipeline(name="round")(round_)


def _play_round(opened: dsl.PipelineTask, ledger: Any, run: Any, form: Channels, build: Build) -> None:
    """Put a round's steps after the one that opens it; they run only if it opened a round."""
    _name_pod(_equip_light(opened, form, build, 1 * HOUR))
    _give_keys(opened, form, ORACLE_KEYS)
    with dsl.If(opened.output >= 0, name="budget-left"):
        _add_steps({"ledger": ledger, "round": opened.output, "run": run}, form, build)


def _add_steps(where: Channels, form: Channels, build: Build) -> None:
    """Put the steps of a round that is open in the order of the data; it goes on only when the duels are labelled."""
    sampled = _on_gpus(sample(**where), "sampler", form, build)
    labeled = _on_gpus(label(**where, duels=sampled.outputs["duels"]), "oracle", form, build)
    _give_keys(labeled, form, ORACLE_KEYS)
    with dsl.If(labeled.outputs["Output"] == 1, name="labelled"):
        _add_learning_steps(where, labeled.outputs["preferences"], form, build)


def _add_learning_steps(where: Channels, preferences: Any, form: Channels, build: Build) -> None:
    """Put the steps that learn from the preferences, measure and close the round."""
    trained = train(**where, preferences=preferences)
    trained = (
        _equip_trainer(trained, form, build) if build.trains_in_step else _equip_light(trained, form, build, 72 * HOUR)
    )
    _name_pod(trained)
    policy = trained.outputs["policy"]
    fitted = fit_reward_model(**where, preferences=preferences)
    reward_model = _equip_light(fitted, form, build, 6 * HOUR).outputs["reward_model"]
    evaluated = _on_gpus(evaluate(**where, policy=policy, reward_model=reward_model), "sampler", form, build)
    _give_keys(evaluated, form, ORACLE_KEYS)
    closed = close_round(**where, policy=policy, verdicts=evaluated.outputs["verdicts"])
    _give_keys(_equip_light(closed, form, build, 1 * HOUR), form, TRACKING_KEYS)


def _equip_light(task: dsl.PipelineTask, form: Channels, build: Build, seconds: int) -> dsl.PipelineTask:
    """Equip a step that computes little: it requests little, and may use more for a while.

    Without a request of its own a step would request its limit, and take a small node from the training's pods.
    """
    resources = [form[name] for name in ("light_cpu", "light_memory", "light_cpu_request", "light_memory_request")]
    cpu, memory, cpu_request, memory_request = resources
    task.set_cpu_limit(cpu).set_memory_limit(memory).set_cpu_request(cpu_request).set_memory_request(memory_request)
    _pass_down(task, resources)
    return _equip_step(task, form, build, seconds)


def _on_gpus(task: dsl.PipelineTask, role: str, form: Channels, build: Build) -> dsl.PipelineTask:
    """Equip a step that runs a model, as the form says for its role."""
    _set_limits(task, form[f"{role}_cpu"], form[f"{role}_memory"], form["gpu_resource"], form[f"{role}_gpus"])
    if role == "sampler":
        _place_pod(task, form["sampler_node_selector"], form["sampler_tolerations"])
    return _equip_step(task, form, build, 24 * HOUR)


def _equip_trainer(task: dsl.PipelineTask, form: Channels, build: Build) -> dsl.PipelineTask:
    """Equip the train step that trains by itself, with what a pod of the training job would get."""
    _set_limits(task, form["train_pod_cpu"], form["train_pod_memory"], form["gpu_resource"], form["train_pod_gpus"])
    _place_pod(task, form["train_node_selector"], form["train_tolerations"])
    return _equip_step(task, form, build, 72 * HOUR)


def _place_pod(task: dsl.PipelineTask, node_selector: Any, tolerations: Any) -> None:
    """Say where a step may run; its workers share more memory than a container has by itself."""
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit="4Gi")


def _set_limits(task: dsl.PipelineTask, cpu: Any, memory: Any, gpu: Any, gpus: Any) -> None:
    task.set_cpu_limit(cpu).set_memory_limit(memory).set_accelerator_type(gpu).set_accelerator_limit(gpus)
    _pass_down(task, [cpu, memory, gpu, gpus])


def _pass_down(task: dsl.PipelineTask, channels: Iterable[Any]) -> None:
    """Pass parameters down to a task: KFP itself does not see that a task below a condition needs them."""
    task.register_pipeline_channels(list(channels))


def _equip_step(task: dsl.PipelineTask, form: Channels, build: Build, seconds: int) -> dsl.PipelineTask:
    """Give a step what every step gets: keys by reference, a deadline, few rights, bounded retries."""
    kubernetes.use_secret_as_env(task, form["s3_secret"], S3_KEYS)
    kubernetes.use_secret_as_env(task, form["keys_secret"], {"HF_TOKEN": "HF_TOKEN"}, optional=True)
    kubernetes.use_config_map_as_env(task, PLACE, {name: name for name in PLACE_VARIABLES}, optional=True)
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.set_timeout(task, seconds)
    if build.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(build.image_pull_secrets))
    if build.retries:
        # For evictions and nodes that go away: every step adopts what an earlier attempt finished.
        task.set_retry(build.retries, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s")
    return disable_cache(task)


def _give_keys(task: dsl.PipelineTask, form: Channels, names: Sequence[str]) -> None:
    """Give a step keys that only it needs, by reference; none of them need exist."""
    kubernetes.use_secret_as_env(task, form["keys_secret"], {name: name for name in names}, optional=True)


def _name_pod(task: dsl.PipelineTask) -> None:
    """Give a step that deals with training jobs the name of its pod, to which the job belongs."""
    for name, path in (("POD_NAME", "name"), ("POD_UID", "uid"), ("POD_NAMESPACE", "namespace")):
        kubernetes.use_field_path_as_env(task, name, f"metadata.{path}")
