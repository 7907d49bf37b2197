"""What is sent of an experiment to a tracker, whichever it is. Reads the ledger; knows no tracker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..ledger.ledger import FIXED_POLICY, Ledger
from ..ledger.windows import folder_uri
from ..records.records import Verdict
from ..records.sealed import digest_of, seal_document
from .curves import RoundRow, SampledDuel, metrics_of, read_rounds, sample_duels, sample_verdicts
from .report import with_answers
from .settings import TrackingSettings

SAMPLES = 6
DUELS, VERDICTS = "sample_duels", "sample_verdicts"
_DUEL = ("round", "duel_id", "prompt", "first", "second", "first_wins", "chosen", "oracle", "strategy", "synthetic")
_VERDICT = ("round", "prompt_id", "prompt", "response", "opponent_response", "policy_wins")


@dataclass(frozen=True, slots=True)
class SampleTable:
    """Some duels or verdicts of a round: the columns' names, and a row for each."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class TrackedPolicy:
    """The policy that a round made: where it lies and its digest; it stays there."""

    uri: str
    digest: str


@dataclass(frozen=True, slots=True)
class TrackedRound:
    """One finished round: its metrics by the names in METRICS.md, its tables by name, and its policy if it made one."""

    number: int
    metrics: dict[str, float]
    tables: dict[str, SampleTable]
    policy: TrackedPolicy | None


def settings_of(ledger: Ledger, round_: int) -> TrackingSettings:
    """Return the tracking settings of the run that did a round, closed or not."""
    claim = ledger.find_claim(round_)
    chosen = claim.operational.get("tracking", {}) if claim else {}
    # An experiment may be older than this section.
    return TrackingSettings.parse({**ledger.experiment.settings.get("tracking", {}), **chosen})


def run_id(ledger: Ledger) -> str:
    """Name an experiment's run: the same in every pipeline run, another if it is begun anew with other settings."""
    return digest_of(seal_document({"at": ledger.identity, "began": ledger.experiment.to_json()}))[:16]


def tracked_rounds(ledger: Ledger, sent: int) -> Iterator[TrackedRound]:
    """Walk the finished rounds but for the first `sent`, oldest first."""
    for row in with_answers(ledger, read_rounds(ledger)[sent:]):
        yield TrackedRound(row.round, metrics_of(row), _sample_tables(ledger, row), _tracked_policy(ledger, row))


def axis_of(metrics: dict[str, float]) -> str:
    """Name the metric that curves run over: the oracle's labels, or those of a preference set."""
    return "labels_total" if "labels_total" in metrics else "queries_total"


def duel_table(round_: int, samples: Sequence[SampledDuel]) -> SampleTable:
    """Return sampled duels as a table."""
    rows = [{**_fields_of(sample.duel), **_fields_of(sample.preference), "round": round_} for sample in samples]
    return SampleTable(_DUEL, tuple(tuple(row[name] for name in _DUEL) for row in rows))


def verdict_table(round_: int, verdicts: Sequence[Verdict]) -> SampleTable:
    """Return sampled verdicts as a table."""
    rows = [{**_fields_of(verdict), "round": round_} for verdict in verdicts]
    return SampleTable(_VERDICT, tuple(tuple(row[name] for name in _VERDICT) for row in rows))


def _sample_tables(ledger: Ledger, row: RoundRow) -> dict[str, SampleTable]:
    tables = {DUELS: duel_table(row.round, sample_duels(ledger, row.round, SAMPLES))}
    if row.win_rate is not None:
        tables[VERDICTS] = verdict_table(row.round, sample_verdicts(ledger, row.round, SAMPLES))
    return {name: table for name, table in tables.items() if table.rows}


def _tracked_policy(ledger: Ledger, row: RoundRow) -> TrackedPolicy | None:
    done = ledger.find_done(row.round, "policy")
    if done is None or done.facts.get(FIXED_POLICY):
        return None
    return TrackedPolicy(folder_uri(ledger, row.round, "policy", "model"), row.policy)


def _fields_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}
