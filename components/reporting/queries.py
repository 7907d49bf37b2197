"""The query ledger: what the oracle was asked, by class, against the budget; and what is known of its answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..statistics.intervals import normal_interval, wilson_interval
from .words import NOT_MEASURED, count, interval, percent, points

CLASSES = ("unreadable", "lost", "undecided", "retried", "unpaid", "reused")
_SUMMED = ("cost", "input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Queried:
    """What one round asked its oracles, and the outcome. METRICS explains each number; None where not measured."""

    training_queries: int | None = None
    evaluation_queries: int | None = None
    online_queries: int | None = None
    unreadable: int = 0
    lost: int = 0
    undecided: int = 0
    retried: int = 0
    unpaid: int = 0
    reused: int = 0
    cost: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    latency: float | None = None
    position_bias: float | None = None
    position_spread: float | None = None
    shown: int | None = None
    consistent: float | None = None
    asked_in_both_orders: int | None = None
    krippendorff_alpha: float | None = None
    krippendorff_low: float | None = None
    krippendorff_high: float | None = None
    agreed_upon: int | None = None


def read_queried(labeled: Mapping[str, Any], judged: Mapping[str, Any]) -> Queried:
    """Gather what the labeling and the evaluation step counted and measured."""
    found = {name: _sum_known([labeled.get(name, 0), *_of_evaluation(judged, name)]) for name in CLASSES}
    found |= {name: _sum_known([labeled.get(name), judged.get(name), judged.get(f"online_{name}")]) for name in _SUMMED}
    told = {field.name: labeled.get(field.name) for field in fields(Queried) if field.name not in found}
    counts = {
        "training_queries": labeled.get("queries"),
        "evaluation_queries": judged.get("evaluation_queries"),
        "online_queries": judged.get("online_queries"),
    }
    return Queried(**{**told, **found, **counts})


def query_table(rounds: Sequence[tuple[int, int | None, Queried]]) -> list[list[str]]:
    """Return the query ledger as text, its head first and the sum over all rounds last.

    `rounds`: number, clashes and queries of each. A class that never occurred is left out, but for the first three.
    """
    rows = [_table_line(clashes, asked) for _, clashes, asked in rounds]
    total = [_sum_known(column) for column in zip(*rows, strict=True)]
    shown = [place for place, value in enumerate(total) if place < 2 or value]
    lines = [[str(number), *_format_line(row, shown)] for (number, _, _), row in zip(rounds, rows, strict=True)]
    head = ["Round", *(_HEAD[place] for place in shown)]
    return [head, *lines, ["all", *_format_line(total, shown)]] if lines else [head]


def oracle_notes(asked: Queried) -> list[str]:
    """Say what was measured of the oracle's answers in a round, with the interval and the number of duels behind it."""
    notes = []
    if asked.position_bias is not None and asked.shown:
        between = ""
        # Duels that all end alike do not say how far their mean can be trusted.
        if asked.position_spread:
            low, high = normal_interval(asked.position_bias, asked.position_spread, asked.shown)
            between = f", 95% interval {points(low)} to {points(high)}"
        notes.append(
            f"Position bias: what is shown first wins {points(asked.position_bias)} more than half"
            f"{between} ({_count_duels(asked.shown)})."
        )
    if asked.consistent is not None and asked.asked_in_both_orders:
        number = asked.asked_in_both_orders
        share = f"{percent(asked.consistent)} {interval(*wilson_interval(asked.consistent, number))}"
        notes.append(f"Asked in both orders, {share} of {_count_duels(number)} have the same winner (95% interval).")
    if asked.krippendorff_alpha is not None:
        alpha = f"{asked.krippendorff_alpha:.2f}{_agreement_text(asked)}"
        notes.append(f"The annotators' agreement (Krippendorff's alpha) is {alpha}.")
    return notes


def _agreement_text(asked: Queried) -> str:
    """Say how far to trust the agreement. An experiment begun before it was counted does not know."""
    between = ""
    if asked.krippendorff_low is not None and asked.krippendorff_high is not None:
        between = f", 95% interval {asked.krippendorff_low:.2f} to {asked.krippendorff_high:.2f}"
    return (
        between if asked.agreed_upon is None else f"{between} ({_count_duels(asked.agreed_upon)} judged by two or more)"
    )


def _count_duels(number: int) -> str:
    return f"{count(number)} duel{'' if number == 1 else 's'}"


_HEAD = (
    "Training", "Evaluation", "Online evaluation", "Clashes", "Unreadable", "Lost", "Undecided", "Retried", "Unpaid",
    "Reused", "Cost",
)  # fmt: skip


def _table_line(clashes: int | None, asked: Queried) -> list[float | None]:
    classes = (getattr(asked, name) for name in CLASSES)
    return [asked.training_queries, asked.evaluation_queries, asked.online_queries, clashes, *classes, asked.cost]


def _format_line(values: Sequence[float | None], shown: Sequence[int]) -> list[str]:
    last = len(_HEAD) - 1
    return [_format_price(values[place]) if place == last else count(_to_whole(values[place])) for place in shown]


def _format_price(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.4f}"


def _to_whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _of_evaluation(judged: Mapping[str, Any], name: str) -> list[Any]:
    return [judged.get(f"evaluation_{name}"), judged.get(f"online_{name}")]


def _sum_known(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
