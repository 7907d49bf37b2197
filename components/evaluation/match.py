"""A match of the policy against the opponent: the oracle compares their answers to the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..labeling.asking import Interview, report_asked
from ..labeling.queries import SPENDING_LIMIT, count_queries, measure_answers, name_reached_limit
from ..records.keep import StepOutputs, StepReport
from ..records.records import Preference, Verdict
from ..records.tables import JUDGEMENTS, ONLINE_JUDGEMENTS, VERDICTS, Table
from ..seeds import derive
from ..statistics.intervals import estimate_outcome
from .held_out import SUMMARY, sum_up
from .pairings import TIE, Pairing, find_mean, make_duel, make_verdict
from .win_rate import win_rate


@dataclass(frozen=True, slots=True)
class Match:
    """Who plays: how the oracle is asked, and what the intervals are made of.

    Attributes:
        interview: Asks the oracle, in batches that are durable one by one.
        seed: The experiment's seed.
        round: The round's number.
    """

    interview: Interview
    seed: int
    round: int

    def measure_held_out(
        self, keep: StepOutputs, pairings: Sequence[Pairing], known: Mapping[str, Preference]
    ) -> StepReport:
        """Measure the win rate on held-out prompts; keeps the verdicts.

        Args:
            keep: Keeps the oracle's answers and the verdicts.
            pairings: The policy's answers against the opponent's.
            known: What the oracle said in earlier rounds, by duel.
        """
        judged, asked = self._ask_oracle(keep, JUDGEMENTS, pairings, known)
        verdicts = [verdict for verdict in judged if verdict is not None]
        keep.write_output(VERDICTS.name, VERDICTS.to_bytes(verdicts))
        facts = measure_wins(verdicts) if verdicts else {}
        if (summary := sum_up(verdicts, derive(self.seed, self.round, "report"))) is not None:
            facts[SUMMARY] = summary.to_facts()
        counts = {f"evaluation_{name}": value for name, value in asked.counts.items()} | count_wins(verdicts)
        if len(verdicts) < len(pairings):
            counts["without_verdict"] = len(pairings) - len(verdicts)
        return StepReport(counts, {**facts, **asked.facts, "oracle": self.interview.oracle.identity}, asked.timings)

    def measure_online(
        self, keep: StepOutputs, pairings: Sequence[Pairing], known: Mapping[str, Preference], spent: float
    ) -> StepReport:
        """Measure how often both answers of a duel beat the opponent's answer to the same prompt.

        Args:
            keep: Keeps the oracle's answers.
            pairings: Both answers of each duel against the opponent's, one after the other.
            known: What the oracle said when it gave the labels, by duel.
            spent: What this step's other queries cost.
        """
        judged, asked = self._ask_oracle(keep, ONLINE_JUDGEMENTS, pairings, known, spent)
        # Two verdicts, one after the other, belong to a duel; a duel without both is left out.
        pairs = zip(judged[::2], judged[1::2], strict=True)
        both = [(first, second) for first, second in pairs if first is not None and second is not None]
        wins = [row.policy_wins for pair in both for row in pair]
        facts = measure_duels(wins)
        whole = ("cost", SPENDING_LIMIT)
        took = {name if name in whole else f"online_{name}": value for name, value in asked.facts.items()}
        counts = {f"online_{name}": value for name, value in asked.counts.items()} | {"online_prompts": len(both)}
        return StepReport(counts, {**took, **facts}, asked.timings)

    def _ask_oracle(
        self,
        keep: StepOutputs,
        table: Table[Preference],
        pairings: Sequence[Pairing],
        known: Mapping[str, Preference],
        spent: float = 0.0,
    ) -> tuple[list[Verdict | None], StepReport]:
        """Return the verdict on each pairing, and what the queries were and took.

        A verdict is None if the oracle's answer cannot be read, or could not be paid for: it is no tie.
        """
        duels = [make_duel(pairing, self.seed) for pairing in pairings]
        watch = report_asked("evaluate", self.round, len(duels))
        interview = replace(self.interview, spent=self.interview.spent + spent)
        asked = interview.collect_preferences(keep, table, duels, known, watch)
        verdicts = [
            make_verdict(pairing, duel, preference) if preference.clash or preference.first_wins is not None else None
            for pairing, duel, preference in zip(pairings, duels, asked.preferences, strict=True)
        ]
        counts = count_queries(asked.receipts, asked.preferences, known)
        facts = measure_answers([*asked.receipts, *asked.unanswered])
        facts |= name_reached_limit(interview.oracle, asked.preferences)
        return verdicts, StepReport(counts, facts, {"judge": asked.seconds})


def join_reports(
    diagnosed: Mapping[str, Any], reports: Sequence[StepReport], tokens: int, seconds: float
) -> StepReport:
    """Return one report of all that an evaluation measured; the costs of its parts are added up.

    Args:
        diagnosed: What was found out about the round's exploration.
        reports: One report for each kind of match that was played.
        tokens: Tokens that were generated for the matches.
        seconds: How long that took.
    """
    facts: dict[str, Any] = dict(diagnosed)
    counts: dict[str, int] = {"prompts": 0, **({"generated_tokens": tokens} if reports else {})}
    for report in reports:
        costs = facts.get("cost", 0.0) + report.facts.get("cost", 0.0)
        counts, facts = {**counts, **report.counts}, {**facts, **report.facts}
        facts |= {"cost": costs} if costs else {}
    asked = sum(report.timings["judge"] for report in reports)
    return StepReport(counts, facts, {"generate": seconds, "judge": asked})


def count_wins(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Count prompts, and those that the policy won and tied."""
    return {
        "prompts": len(verdicts),
        "wins": sum(row.policy_wins > TIE for row in verdicts),
        "ties": sum(row.policy_wins == TIE for row in verdicts),
    }


def measure_wins(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the win rate with its interval, and the mean rewards over the prompts whose rewards are known."""
    measured = win_rate(np.array([row.policy_wins for row in verdicts]))
    return {
        **asdict(measured),
        "mean_reward": find_mean(row.reward for row in verdicts),
        "opponent_mean_reward": find_mean(row.opponent_reward for row in verdicts),
    }


def measure_duels(wins: Sequence[float]) -> dict[str, float | None]:
    """Sum up the probabilities that the answers of duels beat the opponent's; two in a row belong to one duel.

    A duel counts with the mean of its two answers: a win 1, a tie 0.5. `online_mean_probability` is Oat's number.
    """
    if not wins:
        return {}
    both = np.array(wins).reshape(-1, 2)
    found = estimate_outcome(((both > TIE) + 0.5 * (both == TIE)).mean(1))
    return {
        "online_win_rate": found.value,
        "online_low": found.low,
        "online_high": found.high,
        "online_mean_probability": float(both.mean()),
    }
