"""`oatflow audit-oracle`: can the oracle of these settings be trusted? Canaries, and agreement with people."""

from __future__ import annotations

import argparse
import importlib.resources
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from oatflow.components.errors import RecordError, RefusedInput
from oatflow.components.oracles.audit import (
    CANARIES,
    Account,
    Agreement,
    Finding,
    LabelledPair,
    Pair,
    ask_canaries,
    ask_like_people,
)
from oatflow.components.oracles.oracle import Circumstances, Oracle
from oatflow.components.oracles.registry import ORACLES, open_oracle
from oatflow.components.records.json_text import parse_json
from oatflow.components.statistics.intervals import wilson_interval

from ..flags import Flag, add_flags, command, given_settings, settings_flags

LABELS = ("first", "second", "tie")
_FLAGS: list[Flag] = [
    ("--pairs", {"type": Path, "metavar": "FILE", "help": "ask canaries about these pairs, JSON Lines with prompt, "
                 "first and second (default: pairs that ship with oatflow)"}),
    ("--count", {"type": int, "default": 16, "metavar": "N", "help": "pairs to take, of which each costs "
                 f"{len(CANARIES)} questions; 0: no canaries (default: 16)"}),
    ("--labels", {"type": Path, "metavar": "FILE", "help": "compare with people: JSON Lines with prompt, first, second "
                  "and label, which is first, second or tie"}),
]  # fmt: skip


def audit_parser(commands: Any) -> None:
    """Add `oatflow audit-oracle`."""
    parser = command(
        commands, "audit-oracle", "ask the oracle of these settings questions whose right answer is known", _audit,
        local=False, add_help=False,
        usage="oatflow audit-oracle [--preference_oracle NAME] [--SETTING VALUE ...] [--labels FILE]",
    )  # fmt: skip
    add_flags(parser, _FLAGS)
    settings_flags(parser)


def _audit(given: argparse.Namespace) -> int:
    pairs, labelled = _questions(given)
    oracle, requests = _open(given)
    print(_announcement(oracle, pairs, labelled, requests), flush=True)
    oracle.check_ready()
    account = Account()
    try:
        for line in _report(oracle, pairs, labelled, account):
            print(line, flush=True)
    finally:
        print(_cost(account))
    return 0


def _questions(given: argparse.Namespace) -> tuple[list[Pair], list[LabelledPair]]:
    if given.count < 0 or (given.count == 0 and given.labels is None):
        raise RefusedInput(f"count={given.count}: nothing to ask; take at least 1 pair, or give labels")
    pairs = list(islice(read_pairs(given.pairs) if given.pairs else shipped_pairs(), given.count))
    return pairs, read_labels(given.labels) if given.labels else []


def _open(given: argparse.Namespace) -> tuple[Oracle, int]:
    """Open the oracle; returns how many requests one question takes, too."""
    settings = given_settings(given)
    name = settings.labeling.preference_oracle
    if not ORACLES[name].answers_at_once:
        raise RefusedInput(f"preference_oracle={name!r}: people are not audited; `oatflow label` tells how they agree")
    asked_twice = name == "judge" and settings.judge.judge_orders == "both"
    return open_oracle(
        name, settings.find_oracle_section(name), Circumstances(settings.ledger.seed)
    ), 2 if asked_twice else 1


def _announcement(oracle: Oracle, pairs: Sequence[Pair], labelled: Sequence[LabelledPair], requests: int) -> str:
    canaries, labels = len(CANARIES) * len(pairs), len({row.pair for row in labelled})
    what = [f"{canaries} questions about {len(pairs)} pairs"] if pairs else []
    what += [f"{labels} questions that people answered"] if labels else []
    limit = oracle.spending.limit if oracle.spending is not None else None
    return (
        f"Auditing {oracle.identity}: {' and '.join(what)}, at most {(canaries + labels) * requests} requests"
        f"{f', spending at most {limit:g}' if limit is not None else ''}."
    )


def _report(oracle: Oracle, pairs: Sequence[Pair], labelled: Sequence[LabelledPair], account: Account) -> Iterator[str]:
    if pairs:
        yield from _lines(ask_canaries(oracle, pairs, account))
    if labelled:
        yield from _agreement_lines(ask_like_people(oracle, labelled, account))


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    yield f"{'':42}{'found':>7}  {'95% interval':14}{'n':>5}  {'sound':>5}"
    for finding in findings:
        yield _line(finding)
    for finding in findings:
        if finding.fine is False:
            yield f"! {finding.name}: {finding.value:.3g} over {finding.n}: {finding.advice}."
    known = [finding for finding in findings if finding.fine is not None]
    yield f"{sum(bool(finding.fine) for finding in known)} of {len(known)} are as they should be."


def _line(finding: Finding) -> str:
    if finding.value is None:
        return f"{finding.name:42}{'-':>7}  {'':14}{finding.n:>5}"
    low_high = _interval(finding.value, finding.n) if finding.kind == "share" else ""
    mark = "ok" if finding.fine else "!"
    return f"{finding.name:42}{finding.value:>7.3f}  {low_high:14}{finding.n:>5}  {finding.sound:>5g}  {mark}"


def _agreement_lines(found: Agreement) -> Iterator[str]:
    unreadable = f"; {found.unreadable} more cannot be read" if found.unreadable else ""
    if not found.n:
        yield f"Agreement with people: unknown, n = 0{unreadable}."
        return
    yield (
        f"Agreement with people: {found.agreed / found.n:.3f} {_interval(found.agreed / found.n, found.n)}, "
        f"n = {found.n}{unreadable}."
    )
    if found.both_decided not in (0, found.n):
        share = found.decided / found.both_decided
        yield f"Where neither says tie: {share:.3f} {_interval(share, found.both_decided)}, n = {found.both_decided}."
    if found.kappa is None:
        yield f"Cohen's kappa: not defined, since both always say the same one thing, n = {found.n}."
    else:
        yield f"Cohen's kappa: {found.kappa:.3f}, n = {found.n}: {_in_words(found.kappa)}."


def _in_words(kappa: float) -> str:
    """The words of Landis & Koch (1977)."""
    words = [(0.0, "no better than chance"), (0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial")]
    return next((word for most, word in words if kappa <= most), "almost perfect")


def _cost(account: Account) -> str:
    answers = account.answers
    requests, failed = sum(one.requests for one in answers), sum(one.retried for one in answers)
    answered = sum(not one.unanswered for one in answers)
    parts = [f"{answered} questions answered", f"{requests} requests" if requests else "", f"{failed} failed tries"]
    tokens = [(one.input_tokens, one.output_tokens) for one in answers]
    if any(given is not None for given, _ in tokens):
        parts.append(f"{sum(i or 0 for i, _ in tokens)} tokens in and {sum(o or 0 for _, o in tokens)} out")
    costs = [one.cost for one in answers if one.cost is not None]
    if any(costs):
        parts.append(f"cost {sum(costs):.6g}")
    return f"{', '.join(part for part in parts if part)}."


def _interval(share: float, n: int) -> str:
    low, high = wilson_interval(share, n)
    return f"[{low:.3f}, {high:.3f}]"


def shipped_pairs() -> Iterator[Pair]:
    """Pairs of the built-in preference set: a warm and a cold answer; the warm one comes first in every other pair."""
    folder = importlib.resources.files("oatflow.components.prompts") / "review-preferences"
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    for number, row in enumerate(map(json.loads, lines)):
        sides = (row["chosen"], row["rejected"])
        yield Pair(row["prompt"], *(sides if number % 2 == 0 else sides[::-1]))


def read_pairs(path: Path) -> Iterator[Pair]:
    """Read pairs from JSON Lines. Raises `RecordError` that names file, line and field."""
    for where, row in _rows(path):
        yield _pair(where, row)


def read_labels(path: Path) -> list[LabelledPair]:
    """Read what people said from JSON Lines. Raises `RecordError` that names file, line and field."""
    return [LabelledPair(_pair(where, row), _label(where, row)) for where, row in _rows(path)]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        # Only a line feed ends a line: a text may hold other separators.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise RefusedInput(f"{path}: cannot be read ({error})") from error
    numbered = [(f"{path.name}: line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise RecordError(f"{path.name}: is empty; expected a JSON object a line")
    for where, line in numbered:
        try:
            row = parse_json(line)
        except ValueError as error:
            raise RecordError(f"{where}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise RecordError(f"{where}: {line[:60]!r} is not a JSON object")
        yield where, row


def _pair(where: str, row: dict[str, Any]) -> Pair:
    pair = Pair(*(_text(where, row, name) for name in ("prompt", "first", "second")))
    if pair.first == pair.second:
        raise RecordError(f"{where}: second: equal to first; expected two different answers")
    return pair


def _text(where: str, row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        there = f"{value!r}" if name in row else f"missing; there are: {', '.join(map(str, row)) or 'none'}"
        raise RecordError(f"{where}: {name}: expected a text that is not empty, found {there}")
    return value


def _label(where: str, row: dict[str, Any]) -> str:
    label = row.get("label")
    if label not in LABELS:
        raise RecordError(f"{where}: label={label!r}: expected {', '.join(LABELS)}")
    return str(label)
