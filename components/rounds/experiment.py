"""All settings of an experiment: one section a room, and what only holds between rooms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import model_validator

from ..errors import SettingsChanged, SettingsError
from ..evaluation.settings import EvaluationSettings
from ..exploration.settings import NEEDS_TWO_MEMBERS, ExplorationSettings
from ..jobs.resources import ResourceSettings
from ..jobs.settings import JobSettings
from ..labeling.settings import LabelingSettings
from ..ledger.layout import ROOMS
from ..ledger.settings import LedgerSettings
from ..oracles.oracle import ORACLES
from ..oracles.settings import HumanSettings, JudgeSettings, PairRMSettings, RemoteSettings, ScorerSettings
from ..policy.settings import PolicySettings
from ..prompts.settings import OutsideSettings, PromptSettings
from ..records.plan import WITHOUT_REWARD_MODEL
from ..reporting.settings import TrackingSettings
from ..reward_model.settings import RewardModelSettings
from ..sampling.settings import SamplingSettings
from ..settings import Section, is_operational

# Settings that mean nothing where rounds learn from a preference set.
_ONLINE_ONLY = (
    ("sampling", "num_samples"), ("sampling", "temperature"), ("sampling", "top_p"), ("labeling", "bt_sample"),
    ("policy", "sync_params_every"), ("exploration", "exp_method"), ("exploration", "objective"),
    ("exploration", "model_rollout"), ("reward_model", "learn_rm"), ("policy", "learn_rm_only"),
    ("evaluation", "num_bon"),
)  # fmt: skip
Sections = dict[str, dict[str, Any]]


class ExperimentSettings(Section):
    """The whole experiment. Frozen when its first round opens, but for operational settings."""

    prompts: PromptSettings = PromptSettings()
    outside: OutsideSettings = OutsideSettings()
    sampling: SamplingSettings = SamplingSettings()
    exploration: ExplorationSettings = ExplorationSettings()
    reward_model: RewardModelSettings = RewardModelSettings()
    labeling: LabelingSettings = LabelingSettings()
    pairrm: PairRMSettings = PairRMSettings()
    scorer: ScorerSettings = ScorerSettings()
    remote: RemoteSettings = RemoteSettings()
    judge: JudgeSettings = JudgeSettings()
    human: HumanSettings = HumanSettings()
    policy: PolicySettings = PolicySettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    jobs: JobSettings = JobSettings()
    resources: ResourceSettings = ResourceSettings()
    tracking: TrackingSettings = TrackingSettings()
    ledger: LedgerSettings = LedgerSettings()

    @model_validator(mode="after")
    def _rooms_agree(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def rounds(self) -> int:
        """Rounds in the whole experiment: what the budget pays for."""
        return self.exploration.rounds(self.labeling.max_queries, self.prompts.rollout_batch_size)

    @property
    def generates(self) -> bool:
        """Whether a policy ever answers a prompt: to learn from the answers, or to be measured by them."""
        return not self.prompts.offline or self.evaluation.eval_every > 0

    @property
    def learns_rewards(self) -> bool:
        """Whether an epistemic reward model is learned: to pick duels, to label some, or because the user says so."""
        return self.exploration.uses_ensemble or self.reward_model.learn_rm or self.policy.learn_rm_only

    @property
    def rooms(self) -> tuple[str, ...]:
        """Rooms whose steps every round has."""
        return ROOMS if self.learns_rewards else WITHOUT_REWARD_MODEL

    @property
    def oracles(self) -> dict[str, Section]:
        """Oracles that are asked, with their own sections of the settings."""
        labels = () if self.prompts.offline else (self.labeling.preference_oracle,)
        judges = (self.evaluation.eval_oracle or self.labeling.preference_oracle,) if self.judges else ()
        return {name: getattr(self, ORACLES[name].section) for name in (*labels, *judges)}

    @property
    def judges(self) -> bool:
        """Whether an oracle judges answers: held-out ones, or those of duels."""
        return self.evaluation.eval_every > 0 or self.exploration.objective == "explore_and_exploit"

    def _problems(self) -> Iterator[str]:
        if (self.sampling.engine == "scripted") != (self.policy.trainer == "scripted"):
            yield (
                f"sampling.engine={self.sampling.engine!r}, policy.trainer={self.policy.trainer!r}: "
                "a scripted policy can only be sampled by the scripted engine; set both or neither"
            )
        yield from self._offline_problems()
        yield from self._exploration_problems()
        yield from self._oracle_problems()
        if self.evaluation.opponent == "reference" and not self.prompts.output_key:
            yield "evaluation.opponent='reference': name the column of reference answers in prompts.output_key"
        micro = self.policy.train_batch_size_per_device * self.policy.train_workers
        if self.policy.train_batch_size % micro:
            yield (
                f"policy.train_batch_size={self.policy.train_batch_size}: not a multiple of {micro}, which is "
                "train_batch_size_per_device times train_workers"
            )
        yield from self._pod_problems()
        gpus = int(self.resources.sampler_gpus)
        if self.jobs.train_backend != "local" and gpus not in (0, self.sampling.tensor_parallel_size):
            yield (
                f"resources.sampler_gpus='{gpus}': sampling.tensor_parallel_size={self.sampling.tensor_parallel_size} "
                "is the number of GPUs that the engine uses; set both to the same, or sampler_gpus to '0' without GPUs"
            )

    def _offline_problems(self) -> Iterator[str]:
        """Name what a preference set needs, and what was set for sampling and asking, which it takes the place of."""
        chosen, rejected = self.prompts.chosen_key, self.prompts.rejected_key
        if (chosen is None) != (rejected is None):
            yield (
                f"prompts.chosen_key={chosen!r}, prompts.rejected_key={rejected!r}: a preference is a better and a "
                "worse answer; name both columns, or none to learn online"
            )
        for room, name in _ONLINE_ONLY if self.prompts.offline else ():
            section = getattr(self, room)
            value, default = getattr(section, name), type(section).model_fields[name].default
            if value != default:
                yield (
                    f"{room}.{name}={value!r}: offline, nothing is sampled to learn from and no oracle gives a label; "
                    f"leave it out ({default!r}), or leave out prompts.chosen_key and rejected_key to learn online"
                )

    def _oracle_problems(self) -> Iterator[str]:
        """Name what the oracles need, and what was set for one that nobody asks."""
        oracle = self.labeling.preference_oracle
        if self.judges and "human" in self.oracles and (self.evaluation.eval_oracle or oracle) == "human":
            yield (
                "labeling.preference_oracle='human': evaluation needs its verdicts at once; name another judge in "
                "evaluation.eval_oracle, or set evaluation.eval_every to 0"
            )
        for name, needed in (("remote", "remote_url"), ("judge", "judge_model"), ("reward_model", "scorer_model")):
            section = ORACLES[name].section
            if name in self.oracles and not getattr(self.oracles[name], needed):
                yield f"{section}.{needed}='': oracle {name!r} needs it; give it"
        for name, kind in ORACLES.items():
            if name in self.oracles or kind.section == "labeling":
                continue
            for field, inner in kind.settings.model_fields.items():
                value = getattr(getattr(self, kind.section), field)
                if value != inner.default and not is_operational(kind.settings, field):
                    yield f"{kind.section}.{field}={value!r}: nobody asks oracle {name!r}; leave it out, or ask it"

    def _exploration_problems(self) -> Iterator[str]:
        """Name what a strategy needs of other rooms, and what was set for a reward model that nobody learns."""
        method, samples = self.exploration.exp_method, self.sampling.num_samples
        if method in NEEDS_TWO_MEMBERS and self.reward_model.num_ensemble == 1:
            yield (
                f"reward_model.num_ensemble=1: exp_method={method!r} picks where members disagree and "
                "needs at least 2; 20 is usual"
            )
        if method == "XPO" and samples != 2:
            yield f"sampling.num_samples={samples}: exp_method='XPO' lets one answer of each policy duel; set 2"
        if method == "XPO" and self.outside.outside_preferences:
            yield (
                f"outside.outside_preferences={self.outside.outside_preferences!r}: exp_method='XPO' needs an answer "
                "of the reference in every pair; leave it out, or use another strategy"
            )
        if method == "XPO" and self.policy.dap_algo != "dpo":
            yield f"policy.dap_algo={self.policy.dap_algo!r}: exp_method='XPO' is DPO with a term; use dpo"
        if method != "XPO" and self.policy.xpo_alpha != PolicySettings.model_fields["xpo_alpha"].default:
            yield (
                f"policy.xpo_alpha={self.policy.xpo_alpha}: exp_method={method!r} ignores it; leave it out, or use "
                "exp_method='XPO'"
            )
        if (self.exploration.apl_keep or 0) > self.prompts.rollout_batch_size:
            yield (
                f"exploration.apl_keep={self.exploration.apl_keep}: a round has "
                f"prompts.rollout_batch_size={self.prompts.rollout_batch_size} prompts; keep fewer"
            )
        if self.exploration.apl_certainty_only and samples != 2:
            yield f"sampling.num_samples={samples}: apl_certainty_only ranks pairs as they are drawn; set 2"
        if self.learns_rewards:
            return
        if self.evaluation.num_bon > 1:
            yield f"evaluation.num_bon={self.evaluation.num_bon}: nothing picks the best; set reward_model.learn_rm"
        for name, field in RewardModelSettings.model_fields.items():
            value = getattr(self.reward_model, name)
            if value != field.default and not is_operational(RewardModelSettings, name):
                yield (
                    f"reward_model.{name}={value!r}: exp_method={method!r} learns no reward model; set "
                    "reward_model.learn_rm, use a strategy of the ensemble (EnnBAITS, ...), or leave it out"
                )

    def _pod_problems(self) -> Iterator[str]:
        workers, pods, gpus = self.policy.train_workers, self.jobs.train_pods, int(self.jobs.train_pod_gpus)
        if workers % pods:
            yield f"policy.train_workers={workers}: not a multiple of jobs.train_pods={pods}, which share them evenly"
        elif gpus not in (0, workers // pods):
            yield (
                f"jobs.train_pod_gpus='{gpus}': each pod runs {workers // pods} workers (train_workers / train_pods), "
                f"and each of them needs a GPU of its own; set {workers // pods}, or 0 to train on the CPU"
            )
        if self.jobs.train_backend == "trainjob" and self.jobs.train_priority_class:
            yield (
                f"jobs.train_priority_class={self.jobs.train_priority_class!r}: a TrainJob cannot carry it; set it in "
                f"the runtime {self.jobs.train_runtime!r}, or use train_backend='pytorchjob'"
            )
        if self.jobs.train_backend == "local" and pods > 1:
            yield f"jobs.train_pods={pods}: train_backend='local' trains in the step itself; set 1, or another backend"


def refuse_small_budget(settings: ExperimentSettings) -> None:
    """Raise `SettingsError` for a budget that does not pay for one round: most likely a slip.

    No law of the settings themselves, as experiments that began with such a budget can still be read.
    """
    duels = settings.exploration.duels(settings.prompts.rollout_batch_size)
    if not settings.prompts.offline and settings.labeling.max_queries < duels:
        raise SettingsError(
            f"labeling.max_queries={settings.labeling.max_queries}: less than one round, which has {duels} duels; "
            "raise it, or lower prompts.rollout_batch_size"
        )


def split_operational(settings: ExperimentSettings) -> tuple[Sections, Sections]:
    """Return all settings by section, and of these the operational ones."""
    everything = settings.model_dump(mode="json")
    operational = {
        name: {field: value for field, value in section.items() if is_operational(type(getattr(settings, name)), field)}
        for name, section in everything.items()
    }
    return everything, operational


def refuse_changes(frozen: Mapping[str, Mapping[str, Any]], wanted: ExperimentSettings, experiment: str) -> None:
    """Raise `SettingsChanged`, listing every difference in what gives an existing experiment its meaning.

    A setting that is younger than the experiment had its default then.
    """
    everything, operational = split_operational(wanted)
    defaults, _ = split_operational(ExperimentSettings())
    begun = {name: {**defaults[name], **frozen.get(name, {})} for name in everything}
    changes = [
        f"{name}.{field} was {begun[name][field]!r} and is now {value!r}"
        for name, section in everything.items()
        for field, value in section.items()
        if field not in operational[name] and begun[name][field] != value
    ]
    if changes:
        raise SettingsChanged(
            f"experiment {experiment!r} has begun with other settings: {'; '.join(changes)}. "
            "Set them back, or begin another experiment with --new NAME"
        )


def read_settings(
    frozen: Mapping[str, Mapping[str, Any]], operational: Mapping[str, Mapping[str, Any]]
) -> ExperimentSettings:
    """Return the settings of an experiment that has begun, with those that a run chose for itself.

    Sections are checked one by one, and not against each other: an experiment may be older than a rule between them,
    or than a section.
    """
    sections: dict[str, Any] = {}
    for name, field in ExperimentSettings.model_fields.items():
        assert isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        sections[name] = field.annotation.parse({**frozen.get(name, {}), **operational.get(name, {})})
    return ExperimentSettings.model_construct(**sections)
