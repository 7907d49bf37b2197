"""Everything that a report shows, gathered from the ledger once; what is made of it is pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..ledger.ledger import Ledger
from ..records.records import Verdict
from .curves import RoundRow, SampledDuel, read_rounds, sample_duels, sample_verdicts, software

SAMPLES = 6
OPPONENTS = {"pretrain": "the starting model", "reference": "the reference answers"}


@dataclass(frozen=True, slots=True)
class Report:
    """One experiment as people see it.

    `rounds`: how many the experiment has in all, once it is known. `budget`: labels that it may have, the oracle's or
    the preference set's. `oracle`: the identity of who judged.
    `opponent`: who the win rate is against, in words. `digests`: what the chain of rounds hangs on, by name.
    """

    name: str
    rows: tuple[RoundRow, ...]
    rounds: int | None
    budget: int
    oracle: str
    opponent: str
    duels: tuple[SampledDuel, ...]
    verdicts: tuple[Verdict, ...]
    settings: Mapping[str, Mapping[str, Any]]
    software: Mapping[str, str]
    digests: Mapping[str, str]

    @property
    def evaluated(self) -> RoundRow | None:
        """The last round that was evaluated."""
        return next((row for row in reversed(self.rows) if row.win_rate is not None), None)

    @property
    def ranked(self) -> RoundRow | None:
        """The last round whose policy ranked held-out preferences."""
        return next((row for row in reversed(self.rows) if row.held_out_interval is not None), None)

    @property
    def offline(self) -> bool:
        """Whether the policy learned from a preference set, and no oracle gave it a label."""
        return any(row.labels_total is not None for row in self.rows)


def read_report(ledger: Ledger) -> Report:
    """Gather a report of all finished rounds."""
    rows, experiment, head = tuple(read_rounds(ledger)), ledger.experiment, ledger.head()
    duels = tuple(sample_duels(ledger, head.round, SAMPLES)) if rows else ()
    judged = [row.round for row in rows if row.win_rate is not None]
    settings = experiment.settings
    return Report(
        name=experiment_name(ledger.store.uri),
        rows=rows,
        rounds=ledger.plan(head.round).rounds if rows else None,
        budget=int(settings["labeling"]["max_queries"]),
        oracle=_oracle(ledger, head.round, judged),
        opponent=OPPONENTS[settings["evaluation"]["opponent"]],
        duels=duels,
        verdicts=tuple(sample_verdicts(ledger, judged[-1], SAMPLES)) if judged else (),
        settings=settings,
        software=software(ledger),
        digests={
            "starting model": experiment.starting_model,
            "training prompts": experiment.prompts["train"].sha256,
            "held-out prompts": experiment.prompts["eval"].sha256,
            "HEAD": head.digest,
        },
    )


def _oracle(ledger: Ledger, round_: int, judged: Sequence[int]) -> str:
    """Return the identity of who judged the policy last, or else the labels; before the first, the settings' name."""
    marks = [*(ledger.done(evaluated, "evaluation") for evaluated in judged[-1:]), ledger.done(round_, "labeling")]
    known = [mark.facts["oracle"] for mark in marks if mark and "oracle" in mark.facts]
    return str(known[0] if known else ledger.experiment.settings["labeling"]["preference_oracle"])


def experiment_name(uri: str) -> str:
    """Return the name of the experiment whose ledger lies at `uri`."""
    return urlsplit(uri).path.rstrip("/").rpartition("/")[2]
