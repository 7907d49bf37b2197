"""What the queries of a step were: how many of each class, and what they took. Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence
from statistics import fmean, median, stdev

from ..oracles.oracle import Oracle
from ..records.records import Preference, Receipt
from .asking import answers_of

SPENDING_LIMIT = "spending_limit"
"""The fact that says which limit left duels of a round without an answer."""


def count_queries(
    receipts: Sequence[Receipt], preferences: Sequence[Preference], known: Container[str]
) -> dict[str, int]:
    """Count the queries and what became of them. A class that did not occur is not there.

    Each query is a receipt, or an answer from before there were receipts that is not one of the `known`.
    `unreadable`: answered, but not as a verdict. `lost`: perhaps answered, but not kept. `undecided`: neither is
    better. `retried`: requests that failed and were sent again. `unpaid`: duels that the spending limit left out.
    `reused`: duels whose answer was in the ledger already.
    """
    answered = answers_of(preferences)
    asked = {row.duel_id for row in receipts} | {name for name in answered if name not in known}
    classes = {
        "unreadable": sum(row.first_wins is None and not row.lost for row in receipts),
        "lost": sum(row.lost for row in receipts),
        "undecided": sum(row.undecided for row in receipts),
        "retried": sum(row.retried for row in receipts),
        "unpaid": sum(not row.oracle and not row.clash for row in preferences),
        "reused": len(answered.keys() - asked),
    }
    return {"queries": len(asked), **{name: number for name, number in classes.items() if number}}


def measure_answers(receipts: Sequence[Receipt]) -> dict[str, float]:
    """Return what was measured of the answers; what nobody told is not there.

    `cost`, `input_tokens`, `output_tokens`: sums. `latency`: median seconds of an answer. `position_bias`: mean
    probability that whichever response was shown first wins, minus one half, over `shown` duels, and `position_spread`
    its standard deviation among them. `consistent`: share of the duels asked in both orders whose winner is the same in
    both.
    """
    found: dict[str, list[float]] = {
        "cost": [row.cost for row in receipts if row.cost is not None],
        "input_tokens": [row.input_tokens for row in receipts if row.input_tokens is not None],
        "output_tokens": [row.output_tokens for row in receipts if row.output_tokens is not None],
    }
    facts = {name: float(sum(values)) for name, values in found.items() if values}
    if seconds := [row.seconds for row in receipts if row.seconds]:
        facts["latency"] = median(seconds)
    if shown := [row.shown_first_wins for row in receipts if row.shown_first_wins is not None]:
        facts |= {"position_bias": fmean(shown) - 0.5, "shown": len(shown)}
        if len(shown) > 1:
            facts["position_spread"] = stdev(shown)
    if both := [row.consistent for row in receipts if row.consistent is not None]:
        facts |= {"consistent": fmean(both), "asked_in_both_orders": len(both)}
    return facts


def count_labels(preferences: Sequence[Preference]) -> dict[str, int]:
    """Count the labels that a preference set gives; no query is made for them."""
    clashes = sum(preference.clash for preference in preferences)
    return {
        "duels": len(preferences),
        "queries": 0,
        "labels": len(preferences) - clashes,
        "clashes": clashes,
        "first_chosen": sum(preference.chosen == "first" for preference in preferences),
    }


def name_reached_limit(oracle: Oracle, preferences: Sequence[Preference]) -> dict[str, float]:
    """Return the oracle's spending limit if it left duels without an answer."""
    limit = oracle.spending.limit if oracle.spending else None
    unpaid = any(not row.oracle and not row.clash for row in preferences)
    return {SPENDING_LIMIT: limit} if unpaid and limit is not None else {}
