"""Everything that a report shows, gathered from the ledger once; what is made of it is pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..ledger.ledger import Ledger
from ..records.records import Verdict
from .curves import RoundRow, SampledDuel, read_rounds, sample_duels, sample_verdicts, software

SAMPLES = 6
_OPPONENTS = {"pretrain": "the starting model", "reference": "the reference answers"}


@dataclass(frozen=True, slots=True)
class Report:
    """One experiment as people see it.

    `rounds`: how many the experiment has in all, once it is known. `oracle`: the identity of who judged.
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
        oracle=_oracle(ledger, head.round),
        opponent=_OPPONENTS[settings["evaluation"]["opponent"]],
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


def _oracle(ledger: Ledger, round_: int) -> str:
    """Return the identity of who judged last; before the first answer, the name in the settings."""
    done = ledger.done(round_, "labeling")
    return str(done.facts["oracle"] if done else ledger.experiment.settings["labeling"]["preference_oracle"])


def experiment_name(uri: str) -> str:
    """Return the name of the experiment whose ledger lies at `uri`."""
    return urlsplit(uri).path.rstrip("/").rpartition("/")[2]
