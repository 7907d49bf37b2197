"""Reads the ledger into rows, one for each finished round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import fmean
from typing import Any, TypeVar

from ..evaluation.held_out import SUMMARY, HeldOut
from ..labeling.alarms import ALARMS
from ..ledger import layout
from ..ledger.ledger import Ledger
from ..ledger.running import RoundMarks, StepMark
from ..records.keep import read_table
from ..records.records import Duel, Preference, Verdict
from ..records.table import from_parquet
from ..records.tables import VERDICTS
from ..seeds import derive
from ..statistics.intervals import wilson_interval
from .metrics import read_numbers
from .queries import Queried, read_queried
from .words import PREFERENCES, QUERIES, Unit

Sample = TypeVar("Sample")


@dataclass(frozen=True, slots=True)
class Explored:
    """What a round's exploration was worth. METRICS explains each number; None where it was not measured."""

    duel_regret: float | None = None
    duel_regret_low: float | None = None
    duel_regret_high: float | None = None
    regret_duels: int | None = None
    regret_total: float | None = None
    simple_regret: float | None = None
    simple_regret_low: float | None = None
    simple_regret_high: float | None = None
    anytime_regret: float | None = None
    online_win_rate: float | None = None
    online_low: float | None = None
    online_high: float | None = None
    online_mean_probability: float | None = None
    online_prompts: int | None = None
    clash_rate_before: float | None = None
    rm_loss: float | None = None
    rm_accuracy: float | None = None
    rm_brier: float | None = None
    rm_ece: float | None = None
    rm_ece_calibrated: float | None = None
    rm_foretold: int | None = None
    rm_pair_accuracy: float | None = None
    rm_pair_low: float | None = None
    rm_pair_high: float | None = None
    rm_pair_prompts: int | None = None
    uncertainty_chosen: float | None = None
    uncertainty_all: float | None = None
    synthetic: int | None = None
    synthetic_accuracy: float | None = None
    synthetic_known: int | None = None

    @property
    def regret_interval(self) -> tuple[float, float] | None:
        """Where `duel_regret` lies with 95% confidence."""
        return _both_ends(self.duel_regret_low, self.duel_regret_high)

    @property
    def simple_interval(self) -> tuple[float, float] | None:
        """Where `simple_regret` lies with 95% confidence."""
        return _both_ends(self.simple_regret_low, self.simple_regret_high)

    @property
    def online_interval(self) -> tuple[float, float] | None:
        """Where `online_win_rate` lies with 95% confidence."""
        return _both_ends(self.online_low, self.online_high)

    @property
    def pair_interval(self) -> tuple[float, float] | None:
        """Where `rm_pair_accuracy` lies with 95% confidence."""
        return _both_ends(self.rm_pair_low, self.rm_pair_high)

    @property
    def foresight_interval(self) -> tuple[float, float] | None:
        """Where `rm_accuracy` lies with 95% confidence."""
        if self.rm_accuracy is None or not self.rm_foretold:
            return None
        return wilson_interval(self.rm_accuracy, self.rm_foretold)


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One finished round. METRICS explains its numbers; None where one was not measured.

    seconds: of each step, before its first useful work and of its work.
    policy, digest: SHA-256 of the policy that the round made, and of the record that closed the round.
    finished: seconds since the epoch at the end of its last step.
    answers: what the verdicts say beyond the win rate; only reports and trackers read them.
    alarms: a sentence for each reason why the round's labels cannot be trusted.
    """

    round: int
    prompts: int | None
    duels: int | None
    clashes: int | None
    queries: int
    queries_total: int
    labels: int | None
    labels_total: int | None
    pairs: int | None
    loss: float | None
    reward_margin: float | None
    accuracy: float | None
    win_rate: float | None
    low: float | None
    high: float | None
    mean_probability: float | None
    mean_reward: float | None
    opponent_mean_reward: float | None
    held_out: int | None
    held_out_accuracy: float | None
    held_out_margin: float | None
    held_out_pairs: int | None
    generated_tokens: int | None
    seconds: Mapping[str, tuple[float, float]]
    policy: str
    digest: str
    finished: float
    explored: Explored = Explored()
    queried: Queried = field(default_factory=Queried)
    chosen_logprob: float | None = None
    rejected_logprob: float | None = None
    outside_pairs: int | None = None
    answers: HeldOut | None = None
    alarms: tuple[str, ...] = ()

    @property
    def clash_interval(self) -> tuple[float, float, float] | None:
        """Share of the duels whose answers are equal, and where it lies with 95% confidence."""
        if not self.duels or self.clashes is None:
            return None
        share = self.clashes / self.duels
        return share, *wilson_interval(share, self.duels)

    @property
    def learned_from(self) -> int:
        """Labels up to the end of this round, the oracle's or the set's: what curves run over."""
        return self.queries_total if self.labels_total is None else self.labels_total

    @property
    def unit(self) -> Unit:
        """What `learned_from` counts."""
        return QUERIES if self.labels_total is None else PREFERENCES

    @property
    def wall_seconds(self) -> float:
        """Seconds that its steps took together."""
        return sum(startup + work for startup, work in self.seconds.values())

    @property
    def win_interval(self) -> tuple[float, float] | None:
        """Where `win_rate` lies with 95% confidence."""
        return _both_ends(self.low, self.high)

    @property
    def held_out_interval(self) -> tuple[float, float] | None:
        """Where `held_out_accuracy` lies with 95% confidence."""
        if self.held_out_accuracy is None or not self.held_out_pairs:
            return None
        return wilson_interval(self.held_out_accuracy, self.held_out_pairs)


@dataclass(frozen=True, slots=True)
class SampledDuel:
    """A duel and the oracle's preference."""

    duel: Duel
    preference: Preference


def read_rounds(ledger: Ledger) -> list[RoundRow]:
    """Return one row for each finished round, oldest first."""
    rows: list[RoundRow] = []
    ledger.forget_head()
    for marks, digest in zip(ledger.read_marks(), ledger.list_digests(), strict=True):
        before = (rows[-1].queries_total, rows[-1].labels_total or 0) if rows else (0, 0)
        row = _make_row(marks, digest, *before)
        rows.append(replace(row, explored=_with_past(row.explored, [earlier.explored for earlier in rows])))
    return rows


def measure_round(ledger: Ledger, round_: int) -> dict[str, float]:
    """Return what one finished round measured, as KFP and trackers take metrics."""
    return metrics_of(read_rounds(ledger)[round_])


def metrics_of(measured_round: RoundRow) -> dict[str, float]:
    """Return a round's numbers by the names of `RoundRow`, `Explored` and `Queried`, and those of its answers."""
    row = asdict(replace(measured_round, answers=None, alarms=()))
    row |= row.pop("explored") | row.pop("queried")
    row |= measured_round.answers.numbers if measured_round.answers else {}
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "finished"}
    taken = {f"seconds_{step}": startup + work for step, (startup, work) in row["seconds"].items()}
    return numbers | taken


def software(ledger: Ledger) -> dict[str, str]:
    """Return the versions that worked on the last finished round, by package."""
    marks = (ledger.find_done(ledger.read_head().round, room) for room in layout.ROOMS)
    return {name: version for mark in marks if mark for name, version in sorted(mark.software.items())}


def answered_duels(ledger: Ledger, round_: int) -> list[SampledDuel]:
    """Return the duels of a round that somebody was asked about, whatever came of it. A clash is none of them."""
    duels = from_parquet(ledger.read_output("sampling", "duels.parquet", round_), Duel, "duels.parquet")
    answers = {answer.duel_id: answer for answer in _read_preferences(ledger, round_)}
    found = ((duel, answers.get(duel.duel_id)) for duel in duels if not duel.clash)
    return [SampledDuel(duel, answer) for duel, answer in found if answer is not None and answer.oracle]


def sample_duels(ledger: Ledger, round_: int, count: int) -> list[SampledDuel]:
    """Return some answered duels of a round: the same ones whenever asked, picked by seed and not by outcome.

    A duel whose answer cannot be read, or names no winner, is as likely to be among them as any other.
    """
    return _pick_samples(
        ledger, round_, {sample.duel.duel_id: sample for sample in answered_duels(ledger, round_)}, count
    )


def sample_verdicts(ledger: Ledger, round_: int, count: int) -> list[Verdict]:
    """Return some held-out answers of a round's policy beside the opponent's, picked by seed and not by outcome."""
    return _pick_samples(
        ledger, round_, {verdict.prompt_id: verdict for verdict in read_table(ledger, VERDICTS, round_)}, count
    )


def _make_row(marks: RoundMarks, digest: str, queries_before: int, labels_before: int) -> RoundRow:
    found = {room: _numbers_of(marks.steps.get(room)) for room in layout.ROOMS}
    labeled, recorded = found["labeling"], read_numbers(found)
    queries, labels = int(labeled["queries"]), labeled.get("labels")
    return RoundRow(
        **_select_fields(RoundRow, recorded),
        round=marks.round,
        queries=queries,
        queries_total=queries_before + queries,
        labels=labels,
        labels_total=None if labels is None else labels_before + labels,
        seconds={layout.STEPS[room]: _seconds_of(marks.steps[room]) for room in layout.ROOMS if room in marks.steps},
        policy=marks.policy,
        digest=digest,
        finished=max(mark.finished for mark in marks.steps.values()),
        explored=Explored(**_select_fields(Explored, recorded)),
        queried=read_queried(labeled, found["evaluation"]),
        alarms=tuple(labeled.get(ALARMS, ())),
        answers=HeldOut.from_facts(found["evaluation"][SUMMARY]) if SUMMARY in found["evaluation"] else None,
    )


def _both_ends(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)


def _select_fields(record: type[RoundRow] | type[Explored], numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: numbers[field.name] for field in fields(record) if field.name in numbers}


def _with_past(explored: Explored, before: Sequence[Explored]) -> Explored:
    """Add the running regret; it is None from the first round whose regret was not measured."""
    total, simple = before[-1].regret_total if before else 0, [past.simple_regret for past in (*before, explored)]
    known = [regret for regret in simple if regret is not None]
    if len(known) == len(simple):
        explored = replace(explored, anytime_regret=fmean(known))
    if total is None or explored.duel_regret is None or explored.regret_duels is None:
        return explored
    return replace(explored, regret_total=total + explored.duel_regret * explored.regret_duels)


def _numbers_of(mark: StepMark | None) -> dict[str, Any]:
    return {**mark.facts, **mark.counts} if mark else {}


def _seconds_of(mark: StepMark) -> tuple[float, float]:
    return mark.timings.get("startup", 0.0), mark.timings.get("work", mark.finished - mark.started)


def _read_preferences(ledger: Ledger, round_: int) -> list[Preference]:
    done = ledger.find_done(round_, "labeling")
    parts = [placed.name for placed in done.outputs if placed.name.startswith("preferences-")] if done else []
    return [
        row for name in parts for row in from_parquet(ledger.read_output("labeling", name, round_), Preference, name)
    ]


def _pick_samples(ledger: Ledger, round_: int, found: Mapping[str, Sample], count: int) -> list[Sample]:
    order: Sequence[str] = sorted(found, key=lambda name: derive(ledger.seed, round_, name, "report"))
    return [found[name] for name in order[:count]]
