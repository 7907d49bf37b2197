"""When an experiment ends: each reason is a sentence that says how to go on."""

from __future__ import annotations

from ..labeling.missing import describe_missing
from ..labeling.queries import SPENDING_LIMIT
from ..ledger.ledger import Ledger
from .experiment import ExperimentSettings
from .planning import queries_before

IDLE_ROUNDS = 3
"""So many rounds in a row that ask the oracle nothing end an experiment."""


def find_end(ledger: Ledger, round_: int, settings: ExperimentSettings) -> str | None:
    """Return why the experiment has ended before `round_`, in one sentence that says how to go on, or None.

    Args:
        ledger: The experiment.
        round_: The round that would come next.
        settings: The settings of the run that would do it.
    """
    return (
        _find_spent_budget(ledger, round_, settings)
        or _find_reached_limit(ledger, round_, settings)
        or _find_idle_rounds(ledger, round_, settings)
    )


def find_missing(ledger: Ledger, round_: int) -> str:
    """Return what limits left undone in a round, in words; "" where nothing is missing."""
    marks = (ledger.find_done(round_, step) for step in ("labeling", "evaluation")) if round_ >= 0 else ()
    parts = [missing for mark in marks if mark and (missing := describe_missing(mark.counts))]
    return f"round {round_} has {', '.join(parts)}" if parts else ""


def _find_spent_budget(ledger: Ledger, round_: int, settings: ExperimentSettings) -> str | None:
    budget = settings.labeling.max_queries
    if settings.has_fixed_length:
        if round_ < settings.rounds:
            return None
        done = (
            f"it has learned from the {budget:,} preferences"
            if settings.prompts.offline
            else f"its {settings.rounds:,} rounds are done, and members of the ensemble label all further pairs"
        )
    else:
        spent = queries_before(ledger, round_)
        if spent < budget:
            return None
        done = f"{spent:,} of {budget:,} queries are spent"
    return (
        f"The experiment has ended: {done} (labeling.max_queries={budget}){_tell_missing(ledger, round_)}. "
        f"To go on, raise labeling.max_queries (--max_queries {2 * budget})."
    )


def _find_reached_limit(ledger: Ledger, round_: int, settings: ExperimentSettings) -> str | None:
    """The spending limit ends an experiment unless more is given than the round before had."""
    limit = settings.judge.judge_spending_limit
    marks = (ledger.find_done(round_ - 1, step) for step in ("labeling", "evaluation")) if round_ else ()
    reached = [mark.facts[SPENDING_LIMIT] for mark in marks if mark and SPENDING_LIMIT in mark.facts]
    if not reached or limit is None or limit > max(reached):
        return None
    spent = queries_before(ledger, round_)
    return (
        f"The experiment has ended before its budget of queries was spent ({spent:,} of "
        f"{settings.labeling.max_queries:,}): judge.judge_spending_limit={limit:g} is reached"
        f"{_tell_missing(ledger, round_)}. To go on, raise judge.judge_spending_limit "
        f"(--judge_spending_limit {2 * limit:g})."
    )


def _tell_missing(ledger: Ledger, round_: int) -> str:
    missing = find_missing(ledger, round_ - 1)
    return f"; {missing}" if missing else ""


def _find_idle_rounds(ledger: Ledger, round_: int, settings: ExperimentSettings) -> str | None:
    if settings.has_fixed_length or round_ < IDLE_ROUNDS:
        return None
    for earlier in range(round_ - 1, round_ - 1 - IDLE_ROUNDS, -1):
        done = ledger.find_done(earlier, "labeling")
        if done is None or done.counts["queries"] or done.counts.get("unpaid"):
            return None
    spent = queries_before(ledger, round_)
    return (
        f"The experiment has ended before its budget of queries was spent ({spent:,} of "
        f"{settings.labeling.max_queries:,}): the last {IDLE_ROUNDS} rounds asked the oracle nothing, because all "
        "duels were clashes (two equal answers) or answered already. To spend the rest, begin another experiment with "
        "a higher sampling.temperature, more candidates (sampling.num_samples), or more prompts."
    )
