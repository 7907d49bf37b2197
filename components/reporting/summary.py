"""A report in words: one sentence, how far to trust it, a table of rounds, and a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ..labeling.given import PREFERENCE_SET
from ..labeling.labels import MEMBER
from ..records.records import Duel, Preference, Verdict
from .curves import Explored, RoundRow, SampledDuel
from .report import BLIND, Report
from .words import NOT_MEASURED, count, duration, interval, percent, rounded

TIE = 0.5
ORDERS = {"given": ", the first shown first", "swapped": ", the second shown first", "both": ", in both orders"}
"""In which order an oracle saw two answers, in words."""

_COLUMNS = (
    "Round", "Queries", "Preferences", "Win rate", "95% interval", "Online win rate", "Regret", "Foreseen", "Reward",
    "Opponent's", "Held-out accuracy", "Pairs", "Synthetic", "Clashes", "Loss", "Margin", "Time",
)  # fmt: skip
_SAYS_NOTHING = {"Synthetic": "0"}
"""What a column may be left out for where it holds nothing else, besides numbers that were not measured."""


def headline(report: Report) -> str:
    """Return the result in one sentence, never without its interval, its prompts and its judge."""
    if not report.rows:
        return "No round is finished yet, so there is nothing to report."
    row = report.evaluated
    if row is not None:
        prompts = "the" if row.held_out is None else f"{row.held_out:,}"
        return (
            f"{_after(row)} {report.competitor} wins {percent(row.win_rate)} {interval(row.low, row.high)} of "
            f"{prompts} held-out prompts against {report.opponent}, judged by {report.oracle}."
        )
    row = report.ranked
    if row is not None:
        return (
            f"{_after(row)} the policy ranks {_accuracy(row)} of {count(row.held_out_pairs)} held-out pairs as the "
            "preference set does."
        )
    return f"{_after(report.rows[-1])} nothing has been evaluated yet, so there is no win rate to report."


def reading(report: Report) -> str:
    """Say what the interval allows to conclude, and what it does not."""
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
        f"The interval includes 50%: the policy cannot be told apart from {report.opponent} yet. More rounds may move "
        f"it; more held-out prompts make it narrower. {limits}"
    )


def summary_table(rows: Sequence[RoundRow]) -> list[list[str]]:
    """Return the table of rounds as text, its head first. A column that has no number in any round is left out."""
    lines = [_line(row) for row in rows]
    told = [place for place in range(len(_COLUMNS)) if not rows or _is_told(place, lines)]
    return [[line[place] for place in told] for line in (_COLUMNS, *lines)]


def page_markdown(report: Report) -> str:
    """Return the report in short: the sentence, how to read it, the rounds."""
    head, *lines = summary_table(report.rows)
    table = [_markdown_row(head), "|" + " ---: |" * len(head), *map(_markdown_row, lines)]
    parts = [f"# {report.name}", headline(report), reading(report), "\n".join(table) if lines else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def duel_outcome(sample: SampledDuel) -> str:
    """Say what came of a duel, in the words that it can be searched by."""
    chosen = sample.preference.chosen
    if chosen is not None:
        return f"{chosen} chosen"
    if sample.preference.lost:
        return "lost"
    return "unreadable" if sample.preference.first_wins is None else "neither is better"


def verdict_outcome(verdict: Verdict) -> str:
    """Say who won a held-out prompt."""
    if verdict.policy_wins == TIE:
        return "tie"
    return "policy better" if verdict.policy_wins > TIE else "policy worse"


def how_it_came(sample: SampledDuel) -> str:
    """Say what picked the two answers, who judged them in which order, and what became of an answer without a label."""
    return " ".join(part for part in (how_picked(sample.duel), how_judged(sample.preference)) if part)


def how_judged(preference: Preference) -> str:
    """Say who was asked and how; nothing of a label that a member of the ensemble gave, or a preference set."""
    if preference.oracle.startswith(MEMBER) or preference.oracle == PREFERENCE_SET:
        return ""
    said = f"Judged by {preference.oracle}{ORDERS.get(preference.orders or '', '')}."
    if preference.lost:
        return f"{said} The answer was lost before it was kept, so nothing was learned from it."
    if preference.unreadable:
        return f"{said} The answer cannot be read as a verdict, so nothing was learned from it."
    return f"{said} It says that neither is better, so nothing was learned from it." if preference.undecided else said


def how_picked(duel: Duel) -> str:
    """Say what picked two answers, and what the ensemble expected of them; nothing where neither is worth a word."""
    if duel.synthetic and duel.labelled_by_member:
        parts = [f"Synthetic pair: labelled by member {duel.member} of the ensemble, the oracle was not asked."]
    elif duel.synthetic:
        parts = [f"Synthetic pair: proposed by member {duel.member} of the ensemble, labelled by the oracle."]
    elif duel.strategy in (None, *BLIND):
        parts = []
    else:
        parts = [f"Picked by {duel.strategy}."]
    if duel.predicted is not None:
        spread = "" if duel.uncertainty is None else f" ± {100 * duel.uncertainty:.1f} points"
        parts.append(f"Foretold by the ensemble: the first wins with {percent(duel.predicted)}{spread}.")
    return " ".join(parts)


def wall_seconds(row: RoundRow) -> float:
    """Return the seconds that a round's steps took together."""
    return sum(startup + work for startup, work in row.seconds.values())


def _reading_of_ranks(row: RoundRow | None) -> str:
    if row is None or row.held_out_interval is None:
        return ""
    low, high = row.held_out_interval
    limits = (
        "The brackets are a 95% interval over these pairs. Nothing was sampled: this says how the policy weighs "
        "answers that it is given, not how good its own are."
    )
    if low > 0.5:
        return f"All of the interval lies above 50%: the policy tells the better answer from the worse. {limits}"
    if high < 0.5:
        return f"All of the interval lies below 50%: the policy prefers the worse answer. {limits}"
    return f"The interval includes 50%: the policy's preferences cannot be told apart from chance yet. {limits}"


def _is_told(place: int, lines: Sequence[Sequence[str]]) -> bool:
    silent = {NOT_MEASURED, _SAYS_NOTHING.get(_COLUMNS[place], NOT_MEASURED)}
    return any(line[place] not in silent for line in lines)


def _line(row: RoundRow) -> list[str]:
    told = row.explored
    return [
        str(row.round), count(row.queries_total if row.labels_total is None else None), count(row.labels_total),
        percent(row.win_rate), interval(row.low, row.high), _with_interval(told.online_win_rate, told.online_interval),
        _regret(told), _with_interval(told.rm_accuracy, told.foresight_interval), rounded(row.mean_reward),
        rounded(row.opponent_mean_reward), _accuracy(row), count(row.pairs), count(told.synthetic), count(row.clashes),
        rounded(row.loss), rounded(row.reward_margin), duration(wall_seconds(row)),
    ]  # fmt: skip


def _regret(told: Explored) -> str:
    between = told.regret_interval
    ends = "" if between is None else f" [{rounded(between[0])}, {rounded(between[1])}]"
    return rounded(told.duel_regret) + ends


def _accuracy(row: RoundRow) -> str:
    return _with_interval(row.held_out_accuracy, row.held_out_interval)


def _with_interval(share: float | None, between: tuple[float, float] | None) -> str:
    return percent(share) if between is None else f"{percent(share)} {interval(*between)}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _after(row: RoundRow) -> str:
    return f"After {row.unit.said(row.learned_from)}"
