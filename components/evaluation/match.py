"""The policy's answers against the opponent's: what the oracle prefers, and what follows from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .. import progress
from ..labeling.asking import Interview
from ..labeling.queries import count_queries, what_it_took
from ..records.keep import Keep
from ..records.records import Preference, Verdict
from ..records.tables import JUDGEMENTS, ONLINE_JUDGEMENTS, VERDICTS, Table
from ..seeds import derive
from .pairings import TIE, Pairing, find_mean, make_duel, make_verdict
from .win_rate import mean_interval, win_rate


@dataclass(frozen=True, slots=True)
class Measured:
    """What was counted, what was found, and the seconds that this attempt waited for the oracle."""

    counts: Mapping[str, int]
    facts: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class Match:
    """Compares answers of one round.

    Attributes:
        keep: Keeps judgements and verdicts.
        interview: How the oracle is asked.
        round: The round that is measured.
        seed: The experiment's seed.
        samples: How many resamples are behind an interval.
    """

    keep: Keep
    interview: Interview
    round: int
    seed: int
    samples: int

    def measure_held_out(self, pairings: Sequence[Pairing], known: Mapping[str, Preference]) -> Measured:
        """Compare held-out answers; `known`: preferences by duel that need no query."""
        found, queries = self.compare_answers(JUDGEMENTS, pairings, known)
        verdicts = [verdict for verdict in found if verdict is not None]
        self.keep.write_output(VERDICTS.name, VERDICTS.to_bytes(verdicts))
        seed = derive(self.seed, self.round, "bootstrap")
        facts = measure_wins(verdicts, self.samples, seed) if verdicts else {}
        counts = {f"evaluation_{name}": value for name, value in queries.counts.items()} | count_wins(verdicts)
        oracle = self.interview.oracle.identity
        return Measured(counts, {**facts, **queries.facts, "oracle": oracle}, queries.seconds)

    def measure_online(self, pairings: Sequence[Pairing], known: Mapping[str, Preference], spent: float) -> Measured:
        """Compare the answers of duels; `spent`: what this step's other queries cost."""
        found, queries = self.compare_answers(ONLINE_JUDGEMENTS, pairings, known, spent)
        # Two of them, one after the other, make a duel; one without both is left out.
        pairs = zip(found[::2], found[1::2], strict=True)
        both = [(first, second) for first, second in pairs if first is not None and second is not None]
        wins = [row.policy_wins for pair in both for row in pair]
        facts = measure_duels(wins, self.samples, derive(self.seed, self.round, "online"))
        took = {f"online_{name}" if name != "cost" else name: value for name, value in queries.facts.items()}
        counts = {f"online_{name}": value for name, value in queries.counts.items()} | {"online_prompts": len(both)}
        return Measured(counts, {**took, **facts}, queries.seconds)

    def compare_answers(
        self,
        table: Table[Preference],
        pairings: Sequence[Pairing],
        known: Mapping[str, Preference],
        spent: float = 0.0,
    ) -> tuple[list[Verdict | None], Measured]:
        """Ask the oracle, in batches that are durable one by one, about the pairings' duels that are not `known`.

        Returns a verdict for each pairing, and what the queries were and took. A verdict is None where the oracle's
        answer cannot be read or could not be paid for: that is no tie.
        """
        duels = [make_duel(pairing, self.seed) for pairing in pairings]
        interview = replace(self.interview, spent=self.interview.spent + spent)

        def show_progress(done: int) -> None:
            progress.tell("evaluate", self.round, "work", done=done, of=len(duels))

        asked = interview.conduct(self.keep, table.name, duels, known, show_progress)
        verdicts = [
            make_verdict(pairing, duel, preference) if preference.clash or preference.first_wins is not None else None
            for pairing, duel, preference in zip(pairings, duels, asked.preferences, strict=True)
        ]
        counts = count_queries(asked.receipts, asked.preferences, known)
        return verdicts, Measured(counts, what_it_took(asked.receipts), asked.seconds)


def count_wins(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Count prompts, and those that the policy won and tied."""
    return {
        "prompts": len(verdicts),
        "wins": sum(row.policy_wins > TIE for row in verdicts),
        "ties": sum(row.policy_wins == TIE for row in verdicts),
    }


def measure_wins(verdicts: Sequence[Verdict], samples: int, seed: int) -> dict[str, float | None]:
    """Return the win rate with its interval, and the mean rewards over the prompts whose rewards are known."""
    measured = win_rate(np.array([row.policy_wins for row in verdicts]), samples, seed)
    return {
        **asdict(measured),
        "mean_reward": find_mean(row.reward for row in verdicts),
        "opponent_mean_reward": find_mean(row.opponent_reward for row in verdicts),
    }


def measure_duels(wins: Sequence[float], samples: int, seed: int) -> dict[str, float | None]:
    """Return how often the answers of duels beat the opponent's.

    A duel counts with the mean of its two answers: a win 1, a tie 0.5. `online_mean_probability` is Oat's number.

    Args:
        wins: Probabilities that an answer wins; two of them, one after the other, make a duel.
        samples: How many resamples are behind the interval.
        seed: Seed of the resamples.
    """
    if not wins:
        return {}
    both = np.array(wins).reshape(-1, 2)
    outcomes = ((both > TIE) + 0.5 * (both == TIE)).mean(1)
    low, high = mean_interval(outcomes, samples, seed)
    return {
        "online_win_rate": float(outcomes.mean()),
        "online_low": low,
        "online_high": high,
        "online_mean_probability": float(both.mean()),
    }


def merge_measured(found: Sequence[Measured], facts: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    """Return all counts, and `facts` with all that was found beside them; costs are added up."""
    counts: dict[str, int] = {}
    merged = dict(facts)
    for measured in found:
        cost = merged.get("cost", 0.0) + measured.facts.get("cost", 0.0)
        counts |= measured.counts
        merged |= measured.facts
        merged |= {"cost": cost} if cost else {}
    return counts, merged
