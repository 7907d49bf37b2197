"""Checks across the sections of an experiment's settings: each yields a line for every contradiction that it finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..oracles.registry import ORACLES
from ..settings import Section, is_given, is_operational

if TYPE_CHECKING:
    from .experiment import ExperimentSettings

_ONLINE_ONLY = {
    "sampling": ("num_samples", "temperature", "top_p"),
    "exploration": ("exp_method", "objective", "model_rollout"),
    "reward_model": ("learn_rm",),
    "labeling": ("bt_sample", "ties"),
    "policy": ("sync_params_every", "learn_rm_only"),
    "evaluation": ("num_bon",),
}
"""Settings that mean nothing if rounds learn from a preference set."""


def find_contradictions(settings: ExperimentSettings) -> Iterator[str]:
    """Yield every contradiction between sections."""
    yield from _check_scripted(settings)
    yield from _check_offline(settings)
    yield from _check_strategy(settings)
    yield from _check_ignored(settings)
    yield from _check_reward_model(settings)
    yield from _check_oracles(settings)
    yield from _check_evaluation(settings)
    yield from _check_batches(settings)
    yield from _check_pods(settings)


def _check_scripted(settings: ExperimentSettings) -> Iterator[str]:
    engine, trainer = settings.sampling.engine, settings.policy.trainer
    if (engine == "scripted") != (trainer == "scripted"):
        yield (
            f"sampling.engine={engine!r}, policy.trainer={trainer!r}: "
            "a scripted policy can only be sampled by the scripted engine; set both or neither"
        )


def _check_offline(settings: ExperimentSettings) -> Iterator[str]:
    """A preference set needs both columns, and takes the place of sampling and of the oracle."""
    chosen, rejected = settings.prompts.chosen_key, settings.prompts.rejected_key
    if (chosen is None) != (rejected is None):
        yield (
            f"prompts.chosen_key={chosen!r}, prompts.rejected_key={rejected!r}: a preference is a better and a "
            "worse answer; name both columns, or none to learn online"
        )
    if not settings.prompts.offline:
        return
    for name, fields in _ONLINE_ONLY.items():
        section: Section = getattr(settings, name)
        for field in fields:
            if is_given(section, field):
                default = type(section).model_fields[field].default
                yield (
                    f"{name}.{field}={getattr(section, field)!r}: offline, nothing is sampled to learn from and no "
                    f"oracle gives a label; leave it out ({default!r}), or leave out prompts.chosen_key and "
                    "rejected_key to learn online"
                )


def _check_strategy(settings: ExperimentSettings) -> Iterator[str]:
    """What the strategy needs from other sections."""
    method, strategy = settings.exploration.exp_method, settings.exploration.strategy
    members, samples = settings.reward_model.num_ensemble, settings.sampling.num_samples
    if members < strategy.least_members:
        yield (
            f"reward_model.num_ensemble={members}: exp_method={method!r} picks where members disagree and needs at "
            f"least {strategy.least_members}; 20 is usual"
        )
    if strategy.samples not in (None, samples):
        yield f"sampling.num_samples={samples}: exp_method={method!r} needs exactly {strategy.samples}; set that"
    if settings.exploration.apl_certainty_only and samples != 2:
        yield f"sampling.num_samples={samples}: apl_certainty_only ranks pairs as they are drawn; set 2"
    if strategy.loss not in (None, settings.policy.dap_algo):
        yield (
            f"policy.dap_algo={settings.policy.dap_algo!r}: exp_method={method!r} adds a term to the loss "
            f"{strategy.loss!r}; set that"
        )
    if strategy.draws_from_reference and settings.outside.outside_preferences:
        yield (
            f"outside.outside_preferences={settings.outside.outside_preferences!r}: exp_method={method!r} needs an "
            "answer of the reference in every pair; leave it out, or use another strategy"
        )
    if (settings.exploration.apl_keep or 0) > settings.prompts.rollout_batch_size:
        yield (
            f"exploration.apl_keep={settings.exploration.apl_keep}: a round has "
            f"prompts.rollout_batch_size={settings.prompts.rollout_batch_size} prompts; keep fewer"
        )


def _check_ignored(settings: ExperimentSettings) -> Iterator[str]:
    """Settings that only strategies other than the chosen one read."""
    for name, methods in settings.exploration.find_unread().items():
        section_name, _, field = name.partition(".")
        section = getattr(settings, section_name)
        if is_given(section, field):
            yield (
                f"{name}={getattr(section, field)!r}: exp_method={settings.exploration.exp_method!r} ignores it; "
                f"leave it out, or use exp_method={' or '.join(map(repr, methods))}"
            )


def _check_reward_model(settings: ExperimentSettings) -> Iterator[str]:
    """Settings of an epistemic reward model that the experiment does not learn."""
    if settings.learns_rewards:
        return
    if settings.evaluation.num_bon > 1:
        yield f"evaluation.num_bon={settings.evaluation.num_bon}: nothing picks the best; set reward_model.learn_rm"
    for name in _given_fields(settings.reward_model):
        yield (
            f"reward_model.{name}={getattr(settings.reward_model, name)!r}: "
            f"exp_method={settings.exploration.exp_method!r} learns no reward model; set reward_model.learn_rm, use a "
            "strategy of the ensemble (EnnBAITS, ...), or leave it out"
        )


def _check_oracles(settings: ExperimentSettings) -> Iterator[str]:
    """What the oracles need, and settings of an oracle that is not asked."""
    evaluator = settings.evaluation.eval_oracle or settings.labeling.preference_oracle
    if settings.compares_answers and not ORACLES[evaluator].answers_at_once:
        yield (
            f"labeling.preference_oracle={evaluator!r}: evaluation needs its verdicts at once; name another oracle in "
            "evaluation.eval_oracle, or set evaluation.eval_every to 0"
        )
    for name, kind in ORACLES.items():
        section = settings.find_oracle_section(name)
        if name in settings.oracles:
            if kind.required and not getattr(section, kind.required):
                yield f"{kind.section}.{kind.required}='': oracle {name!r} needs it; give it"
        elif not kind.may_be_idle:
            for field in _given_fields(section):
                yield (
                    f"{kind.section}.{field}={getattr(section, field)!r}: oracle {name!r} is not asked; leave it out, "
                    "or ask it"
                )


def _check_evaluation(settings: ExperimentSettings) -> Iterator[str]:
    if settings.evaluation.opponent == "reference" and not settings.prompts.output_key:
        yield "evaluation.opponent='reference': name the column of reference answers in prompts.output_key"


def _check_batches(settings: ExperimentSettings) -> Iterator[str]:
    policy = settings.policy
    micro = policy.train_batch_size_per_device * policy.train_workers
    if policy.train_batch_size % micro:
        yield (
            f"policy.train_batch_size={policy.train_batch_size}: not a multiple of {micro}, which is "
            "train_batch_size_per_device times train_workers"
        )


def _check_pods(settings: ExperimentSettings) -> Iterator[str]:
    """Workers, pods and GPUs of a cluster."""
    jobs, workers = settings.jobs, settings.policy.train_workers
    pods, gpus = jobs.train_pods, int(jobs.train_pod_gpus)
    if workers % pods:
        yield f"policy.train_workers={workers}: not a multiple of jobs.train_pods={pods}, which share them evenly"
    elif gpus not in (0, workers // pods):
        yield (
            f"jobs.train_pod_gpus='{gpus}': each pod runs {workers // pods} workers (train_workers / train_pods), "
            f"and each of them needs a GPU of its own; set {workers // pods}, or 0 to train on the CPU"
        )
    if jobs.train_backend == "trainjob" and jobs.train_priority_class:
        yield (
            f"jobs.train_priority_class={jobs.train_priority_class!r}: a TrainJob cannot carry it; set it in "
            f"the runtime {jobs.train_runtime!r}, or use train_backend='pytorchjob'"
        )
    if jobs.train_backend == "local" and pods > 1:
        yield f"jobs.train_pods={pods}: train_backend='local' trains in the step itself; set 1, or another backend"
    engine_gpus, sampler_gpus = settings.sampling.tensor_parallel_size, int(settings.resources.sampler_gpus)
    if jobs.train_backend != "local" and sampler_gpus not in (0, engine_gpus):
        yield (
            f"resources.sampler_gpus='{sampler_gpus}': sampling.tensor_parallel_size={engine_gpus} "
            "is the number of GPUs that the engine uses; set both to the same, or sampler_gpus to '0' without GPUs"
        )


def _given_fields(section: Section) -> list[str]:
    """Return the settings of a section that were given and that give the experiment its meaning."""
    kind = type(section)
    return [name for name in kind.model_fields if is_given(section, name) and not is_operational(kind, name)]
