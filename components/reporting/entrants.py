"""Experiments side by side: which of them may be compared, and which differ in their seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from ..ledger.ledger import Ledger
from ..records.keep import read_table
from ..records.records import Verdict
from ..records.tables import VERDICTS
from .curves import read_rounds
from .report import OPPONENTS
from .words import PREFERENCES, QUERIES, Unit

LABELS = Unit("label", "labels", "labels: oracle queries, or preferences of a set")
"""What experiments of both kinds have in common."""
_SEED = "ledger.seed"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One evaluated round: the labels up to its end, and the verdicts by prompt."""

    round: int
    labels: int
    verdicts: Mapping[str, Verdict]


@dataclass(frozen=True, slots=True)
class Entrant:
    """One experiment that was named. `meaning`: its settings as room.name, operational ones and the seed left out.

    `conditions`: what must be the same for two win rates to mean the same, by name. `rounds`: finished ones.
    """

    name: str
    seed: int
    meaning: Mapping[str, Any]
    conditions: Mapping[str, str]
    unit: Unit
    rounds: int
    measured: tuple[Measurement, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Group:
    """Experiments that differ in their seed alone, in the order in which they were named."""

    name: str
    entrants: tuple[Entrant, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, one an experiment."""
        return tuple(entrant.seed for entrant in self.entrants)

    @property
    def meaning(self) -> Mapping[str, Any]:
        """The settings that all of them share."""
        return self.entrants[0].meaning


@dataclass(frozen=True, slots=True)
class ExperimentComparison:
    """Groups that may be compared, and experiments that may not, each with the reason in words."""

    groups: tuple[Group, ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def unit(self) -> Unit:
        """What labels are called."""
        units = {entrant.unit for group in self.groups for entrant in group.entrants}
        return units.pop() if len(units) == 1 else LABELS

    @property
    def differences(self) -> dict[str, tuple[Any, ...]]:
        """Settings in which the groups differ, with the value of each group."""
        names = sorted({name for group in self.groups for name in group.meaning})
        values = {name: tuple(group.meaning.get(name) for group in self.groups) for name in names}
        return {name: told for name, told in values.items() if any(value != told[0] for value in told)}


def read_entrant(ledger: Ledger, meaning: Mapping[str, Any]) -> Entrant:
    """Read what is compared of one experiment. `meaning`: its settings as room.name, without the operational ones."""
    rows, experiment = read_rounds(ledger), ledger.experiment
    judged = [row for row in rows if row.win_rate is not None]
    marks = (ledger.find_done(row.round, "evaluation") for row in judged)
    judges = sorted({str(mark.facts["oracle"]) for mark in marks if mark and "oracle" in mark.facts})
    opponent = meaning["evaluation.opponent"]
    return Entrant(
        name=ledger.name,
        seed=ledger.seed,
        meaning={name: value for name, value in meaning.items() if name != _SEED},
        conditions={
            "held-out prompts": experiment.prompts["eval"].sha256[:12],
            "opponent": OPPONENTS[opponent],
            **({"starting model": experiment.starting_model[:12]} if opponent == "pretrain" else {}),
            "judge": " and ".join(judges),
            "sampling temperature of evaluation": str(meaning["evaluation.eval_temperature"]),
            "longest answer of evaluation": str(meaning["evaluation.eval_generate_max_length"]),
        },
        unit=PREFERENCES if any(row.labels_total is not None for row in rows) else QUERIES,
        rounds=len(rows),
        measured=tuple(
            Measurement(
                row.round, row.learned_from, {one.prompt_id: one for one in read_table(ledger, VERDICTS, row.round)}
            )
            for row in judged
        ),
        digest=ledger.read_head().digest,
    )


def compare_entrants(entrants: Sequence[Entrant]) -> ExperimentComparison:
    """Group experiments by their settings, and leave out those that cannot be compared with the first named. Pure."""
    left_out: list[tuple[str, str]] = []
    groups: list[list[Entrant]] = []
    for entrant in entrants:
        standard = groups[0][0] if groups else None
        reason = _not_comparable(entrant, standard)
        group = next((known for known in groups if known[0].meaning == entrant.meaning), None)
        twin = next((known for known in group or () if known.seed == entrant.seed), None)
        if reason:
            left_out.append((entrant.name, reason))
        elif twin is not None:
            left_out.append((entrant.name, f"it has the settings and the seed of {twin.name}, and adds nothing to it"))
        elif group is not None:
            group.append(entrant)
        else:
            groups.append([entrant])
    named = zip(_name_groups(groups), groups, strict=True)
    return ExperimentComparison(tuple(Group(name, tuple(group)) for name, group in named), tuple(left_out))


def describe_kind(entrant: Entrant) -> str:
    """Say how an experiment gets its labels: online, now and then, or offline; and what picks the duels."""
    meaning = entrant.meaning
    if meaning.get("prompts.chosen_key"):
        return "offline: a preference set"
    every = int(meaning.get("policy.sync_params_every") or 1)
    if every >= max(entrant.rounds, 2):
        answers = "offline: the starting model’s answers"
    else:
        answers = "online" if every == 1 else f"iterative: every {every} rounds"
    method = str(meaning.get("exploration.exp_method", "passive"))
    return f"{answers}, {'two random answers' if method == 'passive' else method}"


def _not_comparable(entrant: Entrant, standard: Entrant | None) -> str:
    """Say why an experiment cannot be compared with the first that can; nothing where it can."""
    if not entrant.measured:
        return "no round of it was evaluated"
    if " and " in entrant.conditions["judge"]:
        return f"its rounds were judged by different judges: {entrant.conditions['judge']}"
    theirs = standard.conditions if standard else entrant.conditions
    other = [
        f"other held-out prompts (digest {value} instead of {theirs[name]})"
        if name == "held-out prompts"
        else f"another {name} ({value} instead of {theirs[name]})"
        for name, value in entrant.conditions.items()
        if value != theirs.get(name, value)
    ]
    return " and ".join(other)


def _name_groups(groups: Sequence[Sequence[Entrant]]) -> list[str]:
    """Call a group by the words that its experiments' names begin with, where no other group would be called so."""
    shared = [_shared_words([entrant.name for entrant in group]) for group in groups]
    return [
        group[0].name if len(group) == 1 or not name or shared.count(name) > 1 else name
        for group, name in zip(groups, shared, strict=True)
    ]


def _shared_words(names: Sequence[str]) -> str:
    columns = zip(*(name.split("-") for name in names), strict=False)
    return "-".join(words[0] for words in takewhile(lambda words: len(set(words)) == 1, columns))


def _read_verdicts(ledger: Ledger, round_: int) -> dict[str, Verdict]:
    return {verdict.prompt_id: verdict for verdict in read_table(ledger, VERDICTS, round_)}
