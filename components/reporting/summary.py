"""A report in words: one sentence, how far to trust it, a table of rounds, and a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ..labeling.given import PREFERENCE_SET
from ..records.records import MEMBER, Duel, Preference, Verdict
from .curves import RoundRow, SampledDuel
from .metrics import TABLE, TableColumn
from .report import BLIND, Report
from .words import NOT_MEASURED, count, interval, percent

TIE = 0.5
ORDERS = {"given": ", the first shown first", "swapped": ", the second shown first", "both": ", in both orders"}
"""In which order an oracle saw two answers, in words."""


def headline(report: Report) -> str:
    """Return the result in one sentence, never without its interval, its prompts and its judge.

    Before it comes a sentence on the labels where they cannot be trusted; `list_alarms` says why.
    """
    return " ".join(part for part in (_warn_of_labels(report), _state_result(report)) if part)


def list_alarms(report: Report) -> list[str]:
    """Return what is wrong with the labels, the newest round first."""
    return [f"Round {row.round}: {alarm}" for row in reversed(report.rows) for alarm in row.alarms]


def _warn_of_labels(report: Report) -> str:
    rounds = [row.round for row in report.rows if row.alarms]
    if not rounds:
        return ""
    where = f"round {rounds[0]}" if len(rounds) == 1 else f"{len(rounds)} of {len(report.rows)} rounds"
    return f"The labels of {where} cannot be trusted."


def _state_result(report: Report) -> str:
    if not report.rows:
        return "No round is finished yet, so there is nothing to report."
    row = report.evaluated
    if row is not None:
        prompts = "the" if row.held_out is None else f"{row.held_out:,}"
        return (
            f"{_after_labels(row)} {report.competitor} wins {percent(row.win_rate)} {interval(row.low, row.high)} of "
            f"{prompts} held-out prompts against {report.opponent}, judged by {report.oracle}."
        )
    row = report.ranked
    if row is not None:
        return (
            f"{_after_labels(row)} the policy ranks {_format_accuracy(row)} of {count(row.held_out_pairs)} held-out "
            "pairs as the preference set does."
        )
    return f"{_after_labels(report.rows[-1])} nothing has been evaluated yet, so there is no win rate to report."


def reading(report: Report) -> str:
    """Return what the interval allows to conclude, and what it does not."""
    row = report.evaluated
    if row is None:
        return _reading_of_ranks(report.ranked)
    if row.low is None or row.high is None:
        return ""
    limits = (
        "The brackets are a 95% interval over these prompts, of one run with one seed; it says nothing about other "
        "seeds or other judges."
    )
    if row.low > 0.5:
        return f"All of the interval lies above 50%: the policy is better than {report.opponent}. {limits}"
    if row.high < 0.5:
        return f"All of the interval lies below 50%: the policy is worse than {report.opponent}. {limits}"
    return (
        f"The interval includes 50%: the policy is not yet distinguishable from {report.opponent}. More rounds may "
        f"move it; more held-out prompts make it narrower. {limits}"
    )


def summary_table(rows: Sequence[RoundRow]) -> list[list[str]]:
    """Return the table of rounds as text, its head first. A column that has no number in any round is left out."""
    written = {name: [_write_cell(row, name, column) for row in rows] for name, column in TABLE.items()}
    shown = [[TABLE[name].head, *cells] for name, cells in written.items() if not rows or _is_told(cells, TABLE[name])]
    return [list(line) for line in zip(*shown, strict=True)]


def page_markdown(report: Report) -> str:
    """Return the report in short: the sentence, how to read it, the rounds."""
    head, *lines = summary_table(report.rows)
    table = [_markdown_row(head), "|" + " ---: |" * len(head), *map(_markdown_row, lines)]
    parts = [
        f"# {report.name}",
        headline(report),
        *list_alarms(report),
        reading(report),
        "\n".join(table) if lines else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def duel_outcome(sample: SampledDuel) -> str:
    """Return the outcome of a duel, in the words of the page's search."""
    chosen = sample.preference.chosen
    if chosen is not None:
        return f"{chosen} chosen"
    if sample.preference.lost:
        return "lost"
    return "unreadable" if sample.preference.first_wins is None else "neither is better"


def verdict_outcome(verdict: Verdict) -> str:
    """Return which answer won a held-out prompt."""
    if verdict.policy_wins == TIE:
        return "tie"
    return "policy better" if verdict.policy_wins > TIE else "policy worse"


def how_it_came(sample: SampledDuel) -> str:
    """Return how a duel was picked and judged, and why its answer gave no label where it gave none."""
    return " ".join(part for part in (how_picked(sample.duel), how_judged(sample.preference)) if part)


def how_judged(preference: Preference) -> str:
    """Return which oracle was asked and how; "" for a label from a member of the ensemble or a preference set."""
    if preference.oracle.startswith(MEMBER) or preference.oracle == PREFERENCE_SET:
        return ""
    said = f"Judged by {preference.oracle}{ORDERS.get(preference.orders or '', '')}."
    if preference.lost:
        return f"{said} The answer was lost before it was stored, so nothing was learned from it."
    if preference.unreadable:
        return f"{said} The answer cannot be read as a verdict, so nothing was learned from it."
    return f"{said} It says that neither is better, so nothing was learned from it." if preference.undecided else said


def how_picked(duel: Duel) -> str:
    """Return which strategy picked the answers and what the ensemble predicted; "" where there is neither."""
    if duel.synthetic and duel.labelled_by_member:
        parts = [f"Synthetic pair: labelled by member {duel.member} of the ensemble, without asking the oracle."]
    elif duel.synthetic:
        parts = [f"Synthetic pair: proposed by member {duel.member} of the ensemble, labelled by the oracle."]
    elif duel.strategy in (None, *BLIND):
        parts = []
    else:
        parts = [f"Picked by {duel.strategy}."]
    if duel.predicted is not None:
        spread = "" if duel.uncertainty is None else f" ± {100 * duel.uncertainty:.1f} points"
        parts.append(f"The ensemble’s prediction: the first wins with {percent(duel.predicted)}{spread}.")
    return " ".join(parts)


def _reading_of_ranks(row: RoundRow | None) -> str:
    if row is None or row.held_out_interval is None:
        return ""
    low, high = row.held_out_interval
    limits = (
        "The brackets are a 95% interval over these pairs. Nothing was sampled: this says how the policy ranks "
        "given answers, not how good its own are."
    )
    if low > 0.5:
        return f"All of the interval lies above 50%: the policy ranks the better answer above the worse one. {limits}"
    if high < 0.5:
        return f"All of the interval lies below 50%: the policy prefers the worse answer. {limits}"
    return f"The interval includes 50%: the policy's preferences are not yet distinguishable from chance. {limits}"


def _is_told(cells: Sequence[str], column: TableColumn) -> bool:
    return not set(cells) <= {NOT_MEASURED, column.silent}


def _write_cell(row: RoundRow, name: str, column: TableColumn) -> str:
    holder = row if hasattr(row, name) else row.explored
    # An offline experiment makes no queries, so their count of 0 is no measurement.
    hidden = name == "queries_total" and row.labels_total is not None
    text = NOT_MEASURED if hidden else column.written(getattr(holder, name))
    between = getattr(holder, column.interval) if column.interval else None
    if between is None:
        return text
    ends = interval(*between) if column.written is percent else f"[{', '.join(map(column.written, between))}]"
    return f"{text} {ends}"


def _format_accuracy(row: RoundRow) -> str:
    return _write_cell(row, "held_out_accuracy", TABLE["held_out_accuracy"])


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _after_labels(row: RoundRow) -> str:
    return f"After {row.unit.said(row.learned_from)}"
