"""All settings of an experiment, by section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import model_validator

from ..errors import SettingsChanged, SettingsError
from ..evaluation.settings import EvaluationSettings
from ..exploration.settings import ExplorationSettings
from ..former_settings import FORMER_DEFAULTS, add_former_defaults, update_settings
from ..jobs.resources import ResourceSettings
from ..jobs.settings import JobSettings
from ..labeling.settings import LabelingSettings
from ..ledger.layout import ROOMS
from ..ledger.settings import LedgerSettings
from ..oracles.registry import ORACLES
from ..oracles.settings import (
    HumanSettings,
    JudgeSettings,
    PairRMSettings,
    RemoteSettings,
    ScorerSettings,
    SimulatedSettings,
)
from ..policy.settings import PolicySettings
from ..prompts.settings import OutsideSettings, PromptSettings
from ..records.plan import WITHOUT_REWARD_MODEL
from ..reporting.settings import TrackingSettings
from ..reward_model.settings import RewardModelSettings
from ..sampling.settings import SamplingSettings
from ..settings import Section, is_growing, is_operational
from .cross_checks import find_contradictions

Sections = dict[str, dict[str, Any]]


class ExperimentSettings(Section):
    """The whole experiment. Frozen when its first round opens, but for operational settings."""

    prompts: PromptSettings = PromptSettings()
    outside: OutsideSettings = OutsideSettings()
    sampling: SamplingSettings = SamplingSettings()
    exploration: ExplorationSettings = ExplorationSettings()
    reward_model: RewardModelSettings = RewardModelSettings()
    labeling: LabelingSettings = LabelingSettings()
    simulated: SimulatedSettings = SimulatedSettings()
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

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, given: Any) -> Any:
        return update_settings(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        problems = list(find_contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def rounds(self) -> int:
        """Rounds in the whole experiment, if no duel is a clash: each clash saves a query, which a later round asks."""
        return self.exploration.count_rounds(self.labeling.max_queries, self.prompts.rollout_batch_size)

    @property
    def has_fixed_length(self) -> bool:
        """Whether the number of rounds is known in advance: offline, or where only the burn-in costs queries."""
        return self.prompts.offline or self.exploration.asks_only_at_first(self.prompts.rollout_batch_size)

    def plan_rounds(self, round_: int, left: int) -> int:
        """Return how many rounds there are if `left` queries are left, and each duel from `round_` on costs one."""
        if self.has_fixed_length:
            return self.rounds
        return round_ + self.exploration.count_rounds(left, self.prompts.rollout_batch_size, round_)

    @property
    def generates(self) -> bool:
        """Whether a policy ever answers a prompt, in training or in evaluation."""
        return not self.prompts.offline or self.evaluation.eval_every > 0

    @property
    def learns_rewards(self) -> bool:
        """Whether an epistemic reward model is learned: for exploration, or because the settings ask for it."""
        return self.exploration.uses_ensemble or self.reward_model.learn_rm or self.policy.learn_rm_only

    @property
    def rooms(self) -> tuple[str, ...]:
        """Rooms whose steps every round has."""
        return ROOMS if self.learns_rewards else WITHOUT_REWARD_MODEL

    @property
    def oracles(self) -> dict[str, Section]:
        """The settings of each oracle that is asked, by the oracle's name."""
        labels = () if self.prompts.offline else (self.labeling.preference_oracle,)
        verdicts = (self.evaluation.eval_oracle or self.labeling.preference_oracle,) if self.compares_answers else ()
        return {name: self.find_oracle_section(name) for name in (*labels, *verdicts)}

    @property
    def asks_people(self) -> bool:
        """Whether an oracle is asked that answers between two runs, as people do."""
        return not all(ORACLES[name].answers_at_once for name in self.oracles)

    def find_oracle_section(self, name: str) -> Section:
        """Return the settings of an oracle, whether it is asked or not."""
        kind = ORACLES[name]
        section: Section = getattr(self, kind.section) if kind.section else kind.settings()
        return section

    @property
    def compares_answers(self) -> bool:
        """Whether evaluation asks an oracle to compare answers: held-out ones, or those of duels."""
        return self.evaluation.eval_every > 0 or self.exploration.objective == "explore_and_exploit"


def refuse_small_budget(settings: ExperimentSettings) -> None:
    """Raise `SettingsError` for a budget that does not pay for one round: most likely a slip.

    No law of the settings themselves, as experiments that began with such a budget can still be read.
    """
    duels = settings.exploration.count_duels(settings.prompts.rollout_batch_size)
    if not settings.prompts.offline and settings.labeling.max_queries < duels:
        raise SettingsError(
            f"labeling.max_queries={settings.labeling.max_queries}: less than one round, which has {duels} duels; "
            "raise it, or lower prompts.rollout_batch_size"
        )


def split_operational(settings: ExperimentSettings) -> tuple[Sections, Sections]:
    """Return all settings by section, and of these the ones that a run may choose: operational ones and budgets."""
    everything = settings.model_dump(mode="json")

    def is_chosen(name: str, field: str) -> bool:
        section = type(getattr(settings, name))
        return is_operational(section, field) or is_growing(section, field)

    chosen = {
        name: {field: value for field, value in section.items() if is_chosen(name, field)}
        for name, section in everything.items()
    }
    return everything, chosen


def refuse_changes(frozen: Mapping[str, Mapping[str, Any]], wanted: ExperimentSettings, experiment: str) -> None:
    """Raise `SettingsChanged`, listing every difference in what gives an existing experiment its meaning.

    A setting that is younger than the experiment was then as `FORMER_DEFAULTS` says, or had its default. Today's
    default is no change: nobody chose it for this experiment.
    """
    everything, operational = split_operational(wanted)
    defaults, _ = split_operational(ExperimentSettings())
    written, former = update_settings(frozen), add_former_defaults(frozen)
    begun = {name: {**defaults[name], **former.get(name, {})} for name in everything}

    def is_change(name: str, field: str, value: Any) -> bool:
        if (name, field) in FORMER_DEFAULTS and field not in written.get(name, {}) and value == defaults[name][field]:
            return False
        if is_growing(type(getattr(wanted, name)), field):
            return bool(value < begun[name][field])
        return field not in operational[name] and bool(begun[name][field] != value)

    changes = [
        f"{name}.{field} was {begun[name][field]!r} and is now {value!r}"
        + (", and it can only be raised" if is_growing(type(getattr(wanted, name)), field) else "")
        for name, section in everything.items()
        for field, value in section.items()
        if is_change(name, field, value)
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
    frozen, operational = add_former_defaults(frozen), update_settings(operational)
    for name, field in ExperimentSettings.model_fields.items():
        assert isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        sections[name] = field.annotation.parse({**frozen.get(name, {}), **operational.get(name, {})})
    return ExperimentSettings.model_construct(**sections)
