"""`oatflow status`: what the ledger alone says of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from oatflow.components.ledger import layout
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.oracles.settings import HumanSettings
from oatflow.components.records.plan import WITHOUT_REWARD_MODEL, Plan
from oatflow.components.reporting.curves import RoundRow, read_rounds
from oatflow.components.reporting.queries import query_table
from oatflow.components.rounds.annotation_files import read_batch, read_missing_answers
from oatflow.components.rounds.ending import find_end, find_missing
from oatflow.components.rounds.opening import find_newest_settings
from oatflow.components.rounds.planning import queries_before


def status(ledger: Ledger) -> dict[str, Any]:
    """Return rounds, queries, win rates with intervals, digests and the claim, as plain JSON values.

    `rounds_planned`: if every duel from here on costs a query; what clashes save pays for more. `ended`: why no round
    follows, if none does. `preferences`: how many were learned from so far, offline, where there are no queries; else
    None.
    """
    head = ledger.read_head()
    next_round = head.round + 1
    settings = find_newest_settings(ledger)
    rows = [asdict(row) for row in read_rounds(ledger)]
    ended = find_end(ledger, next_round, settings)
    left = settings.labeling.max_queries - queries_before(ledger, next_round)
    return {
        "ledger": ledger.store.uri,
        "rounds_done": next_round,
        "rounds_planned": next_round if ended else settings.plan_rounds(next_round, left),
        "ended": ended,
        "missing": find_missing(ledger, head.round) or None,
        "queries": rows[-1]["queries_total"] if rows else 0,
        "max_queries": settings.labeling.max_queries,
        "preferences": sum(row["labels"] or 0 for row in rows) if settings.prompts.offline else None,
        "prompts": {"train": len(ledger.train_prompts()), "eval": len(ledger.eval_prompts())},
        "dropped_prompts": dict(ledger.experiment.dropped),
        "starting_model": ledger.experiment.starting_model,
        "head": asdict(head),
        "rounds": rows,
        "open_round": read_open_round(ledger, next_round),
    }


def describe_status(report: dict[str, Any]) -> str:
    """Say the status in a few lines."""
    lines = [
        f"ledger   {report['ledger']}",
        f"rounds   {report['rounds_done']} done, {report['rounds_planned']} planned",
        _describe_labels(report),
        describe_prompts(report["prompts"], report["dropped_prompts"]),
        f"head     {report['head']['digest'][:16]} (fencing token {report['head']['token']})",
    ]
    if report["missing"]:
        lines.append(f"missing  {report['missing']}")
    if report["ended"]:
        lines.append(f"ended    {report['ended']}")
    open_ = report["open_round"]
    if open_ is not None:
        state = "free to be taken over" if open_["free"] else f"holds until {open_['until']}"
        lines.append(f"claim    round {open_['round']}: run {open_['run']} ({open_['owner']}), {state}")
        lines.append(f"steps    done in round {open_['round']}: {', '.join(open_['done']) or 'none'}")
        if open_["people"] is not None:
            lines.append(f"people   {open_['people']['open']} of {open_['people']['asked']} duels are open")
    return "\n".join(lines)


def describe_queries(rows: Sequence[RoundRow]) -> str:
    """Return the query ledger as a table: what the oracle was asked in each round, by class."""
    lines = query_table([(row.round, row.clashes, row.queried) for row in rows])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(["oracle queries", *texts])


def describe_prompts(kept: Mapping[str, int], dropped: Mapping[str, int]) -> str:
    """Say how many prompts there are, and how many were too long to be used."""
    parts = [f"{kept[split]} {split} ({dropped[split]} too long, dropped)" for split in kept]
    return f"prompts  {', '.join(parts)}"


def _describe_labels(report: Mapping[str, Any]) -> str:
    if report["preferences"] is not None:
        return f"learned  from {report['preferences']} of {report['max_queries']} preferences of the set"
    return f"queries  {report['queries']} of {report['max_queries']} spent"


def read_open_round(ledger: Ledger, round_: int) -> dict[str, Any] | None:
    """Return how far the round is that comes next, or None where no run has claimed it."""
    claim = ledger.find_claim(round_)
    if claim is None:
        return None
    planned = ledger.read_document(layout.plan_key(round_))
    rooms = Plan.from_json(planned).rooms if planned else WITHOUT_REWARD_MODEL
    missing = [room for room in rooms if ledger.find_done(round_, room) is None]
    return {
        "round": round_,
        "run": claim.run,
        "owner": str(claim.owner),
        "token": claim.token,
        "until": claim.until,
        "free": claim.is_free,
        "missing": missing,
        "next_step": layout.STEPS[missing[0]] if missing else None,
        "people": _describe_people(ledger, round_) if "labeling" in missing else None,
        "done": [room for room in layout.ROOMS if ledger.find_done(round_, room) is not None],
    }


def _describe_people(ledger: Ledger, round_: int) -> dict[str, int] | None:
    """Return how many duels the round has put to people, how many are open, and how many answers these lack."""
    if read_batch(ledger, round_) is None:
        return None
    missing = read_missing_answers(ledger, round_, HumanSettings.parse(ledger.experiment.settings.get("human", {})))
    return {"asked": missing.asked, "open": len(missing.by_duel), "answers": sum(missing.by_duel.values())}
