"""Charts of what a round's exploration was worth: regret, online win rate, foresight, uncertainty, clashes."""

from __future__ import annotations

from collections.abc import Sequence

from ..statistics.intervals import Estimate
from .curves import RoundRow
from .foretold import Foretold
from .line_chart import (
    AMOUNT,
    CHANCE,
    EVEN,
    PART,
    Chart,
    Curve,
    curve_chart,
    draw_estimate,
    over_rounds,
    plain_points,
    points_of,
)
from .svg import OF_ALL, OF_ENSEMBLE, OF_POLICY, against_promise, draw_svg
from .table import Column, Table
from .words import count, percent, rounded


def exploration_charts(rows: Sequence[RoundRow], opponent: str, foretold: Foretold | None = None) -> list[Chart | None]:
    """Draw what is known of the rounds' exploration; None for what is not."""
    return [
        regret_chart(rows), online_chart(rows, opponent), foresight_chart(rows), reliability_chart(foretold),
        uncertainty_chart(rows), clash_chart(rows),
    ]  # fmt: skip


def regret_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the mean regret of the rounds' duels, and of the ensemble's own choice where it has one."""
    known = [row for row in rows if row.explored.duel_regret is not None]
    if not known:
        return None
    told = [row.explored for row in known]
    duels, picked = [one.duel_regret for one in told], [one.simple_regret for one in told]
    of_duels, of_picked = [one.regret_interval for one in told], [one.simple_interval for one in told]
    curves = [Curve("both answers of a duel", OF_POLICY, plain_points(known, duels, of_duels))]
    if any(regret is not None for regret in picked):
        curves.insert(0, Curve("the ensemble’s choice", OF_ENSEMBLE, plain_points(known, picked, of_picked)))
    total = told[-1].regret_total
    summed = "" if total is None else f" The sum over all duels so far is {rounded(total)}."
    return curve_chart(
        "regret", "Regret within the candidates", curves, rows[0].unit, AMOUNT,
        over_rounds(
            known, Column("Duels", tuple(one.regret_duels for one in told), count),
            Column("Mean regret", tuple(duels), rounded), *_interval_columns(of_duels, ""),
            Column("Sum so far", tuple(one.regret_total for one in told), rounded),
            Column("Ensemble’s choice", tuple(picked), rounded), *_interval_columns(of_picked, "its "),
            Column("Its mean so far", tuple(one.anytime_regret for one in told), rounded),
        ),
        label="the mean regret of a round’s duels",
        note="Mean over all duels of a round with its 95% interval, by their known rewards; 0 is the best candidate."
        f"{summed}",
    )  # fmt: skip


def online_chart(rows: Sequence[RoundRow], opponent: str) -> Chart | None:
    """Draw the win rate of both answers of each duel with its 95% interval, or None where it was not measured."""
    rates = [_estimate_of(row.explored.online_win_rate, row.explored.online_interval) for row in rows]
    judged, found = _keep_known(rows, rates)
    if not found:
        return None
    return curve_chart(
        "online-win-rate", "Online win rate with its 95% interval",
        [Curve(f"both answers of a duel against {opponent}", OF_POLICY, points_of(judged, found))],
        rows[0].unit, EVEN,
        over_rounds(
            judged, *draw_estimate("Online win rate", found, percent),
            Column("Duels", tuple(row.explored.online_prompts for row in judged), count),
        ),
        label="the online win rate",
    )  # fmt: skip


def foresight_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the share of labels that the ensemble predicted, with its 95% interval, or None without predictions."""
    shares = [_estimate_of(row.explored.rm_accuracy, row.explored.foresight_interval) for row in rows]
    foretold, found = _keep_known(rows, shares)
    if not found:
        return None
    told = [row.explored for row in foretold]
    return curve_chart(
        "foresight", "What the ensemble foresaw",
        [Curve("labels foreseen, 95% interval", OF_POLICY, points_of(foretold, found))], rows[0].unit, CHANCE,
        over_rounds(
            foretold, *draw_estimate("Foreseen", found, percent),
            Column("Brier score", tuple(one.rm_brier for one in told), rounded),
            Column("Calibration error", tuple(one.rm_ece for one in told), rounded),
            Column("if calibrated", tuple(one.rm_ece_calibrated for one in told), rounded),
            Column("Labels", tuple(one.rm_foretold for one in told), count),
        ),
        label="the share of labels that the ensemble foresaw",
        note="Of the duels that the strategy picked, so it cannot compare strategies: where rewards are known, the "
        "table of rounds has the pairs ranked rightly among all candidates. A calibrated forecaster has an error too, "
        "by chance.",
    )  # fmt: skip


def reliability_chart(foretold: Foretold | None) -> Chart | None:
    """Draw how often the ensemble's favourite won over its predicted chance, or None without predictions."""
    if foretold is None:
        return None
    bins = foretold.bins
    promised, kept, lows, highs = ([getattr(one, name) for one in bins] for name in ("promised", "kept", "low", "high"))
    where = (
        f"round {foretold.last}" if foretold.first == foretold.last else f"rounds {foretold.first} to {foretold.last}"
    )
    told = "; ".join(
        f"of {count(one.duels)} duels foretold with {percent(one.promised)}, {percent(one.kept)} came true "
        f"(95% interval {percent(one.low)} to {percent(one.high)})"
        for one in bins
    )
    return Chart(
        name="calibration",
        title="Calibration of the ensemble",
        key=(("policy", "● favourites that won, 95% interval"), ("plain", "- - as often as foretold")),
        label=f"Line chart of how often the ensemble’s favourite won, over the chance that it was given: {told}.",
        svg=draw_svg("calibration", lambda axes: against_promise(axes, promised, kept, lows, highs)),
        table=Table(
            (
                Column("Foretold", tuple(promised), percent), Column("Came true", tuple(kept), percent),
                Column("95% from", tuple(lows), percent), Column("to", tuple(highs), percent),
                Column("Duels", tuple(one.duels for one in bins), count),
            )
        ),
        note=f"{count(foretold.duels)} duels of {where}, foretold before they were learned from. Below the dashed line "
        "the ensemble is overconfident.",
    )  # fmt: skip


def uncertainty_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the ensemble's uncertainty of the picked pairs and of all pairs, or None where it was not measured."""
    unsure = [
        row for row in rows if row.explored.uncertainty_chosen is not None and row.explored.uncertainty_all is not None
    ]
    if not unsure:
        return None
    chosen = [100 * (row.explored.uncertainty_chosen or 0.0) for row in unsure]
    everywhere = [100 * (row.explored.uncertainty_all or 0.0) for row in unsure]
    return curve_chart(
        "uncertainty", "How unsure the ensemble is of a win",
        [Curve("all pairs", OF_ALL, plain_points(unsure, everywhere)),
         Curve("picked pairs", OF_POLICY, plain_points(unsure, chosen))],
        rows[0].unit, AMOUNT,
        over_rounds(
            unsure, Column("Picked pairs", tuple(chosen), rounded), Column("All pairs", tuple(everywhere), rounded)
        ),
        label="the ensemble’s uncertainty of a win",
        note="Standard deviation, over the members, of a pair’s win probability in percentage points; mean over the "
        "pairs of a round.",
    )  # fmt: skip


def clash_chart(rows: Sequence[RoundRow]) -> Chart | None:
    """Draw the share of duels between equal answers with its 95% interval, or None where no round had one."""
    met = [row for row in rows if row.clash_interval is not None]
    if not any(row.clashes for row in met):
        return None
    shares = [Estimate(*found) for row in met if (found := row.clash_interval) is not None]
    return curve_chart(
        "clashes", "Clash rate with its 95% interval",
        [Curve("duels of two equal answers", OF_POLICY, points_of(met, shares))], rows[0].unit, PART,
        over_rounds(
            met,
            *draw_estimate("Clash rate", shares, percent),
            Column("Clashes", tuple(row.clashes for row in met), count),
            Column("Duels", tuple(row.duels for row in met), count),
            *_repair_columns(met),
        ),
        label="the clash rate",
        note="A clash gives no label and costs no query. A rising rate means that the answers become alike.",
    )  # fmt: skip


def _repair_columns(rows: Sequence[RoundRow]) -> list[Column]:
    before = tuple(row.explored.clash_rate_before for row in rows)
    return [Column("Before repair", before, percent)] if any(share is not None for share in before) else []


def _interval_columns(intervals: Sequence[tuple[float, float] | None], whose: str) -> list[Column]:
    lows, highs = zip(*(ends or (None, None) for ends in intervals), strict=True)
    return [Column(f"{whose}95% from", lows, rounded), Column(f"{whose}to", highs, rounded)]


def _estimate_of(value: float | None, interval: tuple[float, float] | None) -> Estimate | None:
    return None if value is None or interval is None else Estimate(value, *interval)


def _keep_known(
    rows: Sequence[RoundRow], estimates: Sequence[Estimate | None]
) -> tuple[list[RoundRow], list[Estimate]]:
    pairs = [(row, found) for row, found in zip(rows, estimates, strict=True) if found is not None]
    return [row for row, _ in pairs], [found for _, found in pairs]
