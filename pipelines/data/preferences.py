"""`oatflow export-preferences`: what was preferred to what, and how that is known, for `datasets`, TRL and Argilla.

One row a preference that has a label, with its whole provenance. Texts are as they were; labels too, those that noise
flipped (`preference_flip_prob`) included. The same rounds give the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from oatflow.components.errors import RefusedInput
from oatflow.components.exploration.registry import STRATEGIES
from oatflow.components.labeling.given import PREFERENCE_SET
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.records.keep import read_table
from oatflow.components.records.plan import Plan
from oatflow.components.records.records import OF_REFERENCE, Duel, Preference, Prompt, duel_id
from oatflow.components.records.table import schema_of, to_parquet
from oatflow.components.records.tables import DUELS, PREFERENCES

from .export import arriving_folder

FORMATS = ("parquet", "jsonl", "argilla")
TEXTS = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
"""Columns of text, and who says it."""
_MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))


@dataclass(frozen=True, slots=True)
class Preferred:
    """A preference with its provenance; the columns of the export.

    `origin`: "oracle" asked in the experiment, "ensemble" (a synthetic pair that `member` labelled), "preference set"
    that the experiment learned from offline, or "outside", made elsewhere and mixed in. `oracle`: who said so.
    `first_wins`: its probability that the first answer wins, and `chosen_side` the label drawn from it. `orders`: in
    which order both were shown. `predicted`, `uncertainty`: what the ensemble expected of the first. `chosen_policy`,
    `rejected_policy`: digest of the policy that wrote the answer, where one did.
    """

    prompt: str
    chosen: str
    rejected: str
    prompt_id: str
    duel_id: str
    experiment: str
    round: int
    origin: str
    oracle: str
    first_wins: float | None
    chosen_side: str
    orders: str | None
    synthetic: bool
    member: int | None
    chosen_reward: float | None
    rejected_reward: float | None
    strategy: str | None
    predicted: float | None
    uncertainty: float | None
    chosen_policy: str | None
    rejected_policy: str | None


@dataclass(frozen=True, slots=True)
class Gathered:
    """The preferences of some rounds, and how many duels were left out, by reason."""

    rows: tuple[Preferred, ...]
    left_out: Counter[str]

    def __str__(self) -> str:
        origins = Counter(row.origin for row in self.rows)
        parts = [f"{count:,} {origin}" for origin, count in sorted(origins.items())]
        without = [f"{count:,} {reason}" for reason, count in sorted(self.left_out.items())]
        return f"{len(self.rows):,} preferences ({', '.join(parts)}); left out: {', '.join(without) or 'none'}"


def export_preferences(ledger: Ledger, rounds: Sequence[int], out: Path, format_: str, messages: bool) -> str:
    """Write the preferences of finished rounds and a card into a new folder; returns what they are, in words."""
    found = gather(ledger, rounds)
    if not found.rows:
        raise RefusedInput(f"{_name_column(rounds)} have no preference with a label; left out: {dict(found.left_out)}")
    if messages and format_ == "argilla":
        raise RefusedInput("messages=True: records for Argilla hold text; leave --messages out, or take another format")
    name = {"parquet": "preferences.parquet", "jsonl": "preferences.jsonl", "argilla": "records.jsonl"}[format_]
    with arriving_folder(out) as folder:
        (folder / name).write_bytes(_WRITERS[format_](found.rows, messages))
        (folder / "README.md").write_text(card(ledger, rounds, found, name, messages), encoding="utf-8")
    return str(found)


def gather(ledger: Ledger, rounds: Sequence[int]) -> Gathered:
    """Return the labelled preferences of finished rounds, in their order, and count what has no label."""
    rows: list[Preferred] = []
    left_out: Counter[str] = Counter()
    for round_ in rounds:
        plan = ledger.read_plan(round_)
        answers = {(row.duel_id, row.prompt_id): row for row in read_table(ledger, PREFERENCES, round_)}
        for duel in read_table(ledger, DUELS, round_):
            answer = answers.get((duel.duel_id, duel.prompt_id))
            if answer is None or answer.chosen is None:
                left_out[_explain_left_out(answer)] += 1
            else:
                rows.append(_order_answers(ledger, plan, duel, answer))
        rows += _describe_outside(ledger, plan)
    return Gathered(tuple(rows), left_out)


def to_table(rows: Sequence[Preferred], messages: bool) -> bytes:
    """Return Parquet; with `messages` the texts as chat messages, which TRL puts into the model's template."""
    if not messages:
        return to_parquet(rows, Preferred)
    kind = {name: _MESSAGES if name in TEXTS else None for name in schema_of(Preferred).names}
    schema = pa.schema([field.with_type(kind[field.name] or field.type) for field in schema_of(Preferred)])
    buffer = BytesIO()
    table = pa.Table.from_pylist([_as_messages(asdict(row)) for row in rows], schema)
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def to_lines(rows: Sequence[Preferred], messages: bool) -> bytes:
    """Return JSON Lines with the same columns."""
    return _write_lines(_as_messages(asdict(row)) if messages else asdict(row) for row in rows)


def to_argilla(rows: Sequence[Preferred], _messages: bool) -> bytes:
    """Return records for Argilla 2, one a line, as `rg.Record.from_dict` takes them.

    The fields and the question are those of `oatflow label`: prompt, response_left and response_right (the duel's first
    and second answer), and "preference", for which the label is a suggestion of whoever gave it.
    """
    return _write_lines(_make_record(row) for row in rows)


_WRITERS = {"parquet": to_table, "jsonl": to_lines, "argilla": to_argilla}


def card(ledger: Ledger, rounds: Sequence[int], found: Gathered, name: str, messages: bool) -> str:
    """Return the data set's card."""
    experiment, settings = ledger.name, ledger.experiment.settings
    template = settings["prompts"].get("apply_chat_template", True)
    texts = "chat messages" if messages else "plain text"
    hint = "" if messages or not template else (
        " The experiment put prompts into the model's chat template; `--messages` exports what lets TRL do so."
    )  # fmt: skip
    head = f"---\nconfigs:\n- config_name: default\n  data_files: {name}\n---\n" if name != "records.jsonl" else ""
    columns = "\n".join(f"- `{field.name}`" for field in fields(Preferred))
    return f"""{head}# Preferences of {experiment}

{found}.

{_name_column(rounds).capitalize()} of the oatflow experiment `{experiment}`, whose policy began as
`{settings["policy"].get("pretrain") or "a scripted stand-in"}`. `prompt`, `chosen` and `rejected` are {texts}.{hint}
What `chosen` means was said by: {", ".join(sorted({row.oracle for row in found.rows}))}.

Labels are as they were learned from: where the experiment let noise flip them, `chosen` is the flipped one, and
`first_wins` the oracle's own probability. `origin` tells the oracle's labels from those of an ensemble's member
(`synthetic`), of a preference set, and of preferences made outside the experiment.

Columns:

{columns}
"""


def _explain_left_out(answer: Preference | None) -> str:
    if answer is None:
        return "not asked"
    if answer.clash:
        return "clashes"
    return (
        "lost"
        if answer.lost
        else "unreadable"
        if answer.unreadable
        else "undecided"
        if answer.undecided
        else "without a label"
    )


def _order_answers(ledger: Ledger, plan: Plan, duel: Duel, answer: Preference) -> Preferred:
    sides = [
        (duel.first, answer.first_reward, _find_author(ledger, plan, duel, answer, duel.first_candidate)),
        (duel.second, answer.second_reward, _find_author(ledger, plan, duel, answer, duel.second_candidate)),
    ]
    (chosen, better, by), (rejected, worse, against) = sides if answer.chosen == "first" else sides[::-1]
    return Preferred(
        duel.prompt, chosen, rejected, duel.prompt_id, duel.duel_id, ledger.name, plan.round,
        _find_origin(duel, answer), answer.oracle, answer.first_wins, str(answer.chosen), answer.orders,
        bool(duel.synthetic), duel.member, better, worse, duel.strategy, duel.predicted, duel.uncertainty, by, against,
    )  # fmt: skip


def _find_origin(duel: Duel, answer: Preference) -> str:
    if duel.labelled_by_member:
        return "ensemble"
    return PREFERENCE_SET if answer.oracle == PREFERENCE_SET else "oracle"


def _find_author(ledger: Ledger, plan: Plan, duel: Duel, answer: Preference, candidate: int) -> str | None:
    """Return the digest of the policy that wrote a candidate; a preference set does not say."""
    if answer.oracle == PREFERENCE_SET:
        return None
    strategy = STRATEGIES.get(str(duel.strategy))
    if strategy and strategy.draws_from_reference and candidate == OF_REFERENCE:
        return ledger.experiment.starting_model
    return plan.sampler.digest


def _describe_outside(ledger: Ledger, plan: Plan) -> Iterator[Preferred]:
    source = str(ledger.experiment.settings.get("outside", {}).get("outside_preferences", ""))
    # A small set may come round within one round; equal texts are no preference.
    once = {prompt.prompt_id: prompt for prompt in plan.outside if prompt.chosen != prompt.rejected}
    for prompt in once.values():
        yield _from_outside(prompt, source, ledger.name, plan.round)


def _from_outside(prompt: Prompt, source: str, experiment: str, round_: int) -> Preferred:
    chosen, rejected = str(prompt.chosen), str(prompt.rejected)
    return Preferred(
        prompt.text, chosen, rejected, prompt.prompt_id, duel_id(prompt.text, chosen, rejected), experiment, round_,
        "outside", source, None, "first", None, False, None, None, None, None, None, None, None, None,
    )  # fmt: skip


def _as_messages(row: dict[str, Any]) -> dict[str, Any]:
    return {name: [{"role": TEXTS[name], "content": value}] if name in TEXTS else value for name, value in row.items()}


def _make_record(row: Preferred) -> dict[str, Any]:
    said = {name: value for name, value in asdict(row).items() if name not in TEXTS and value is not None}
    left, right = (row.chosen, row.rejected) if row.chosen_side == "first" else (row.rejected, row.chosen)
    suggestion: dict[str, Any] = {"value": "left" if row.chosen_side == "first" else "right", "agent": row.oracle}
    return {
        "id": f"{row.round:05d}-{row.duel_id}-{row.prompt_id}",
        "fields": {"prompt": row.prompt, "response_left": left, "response_right": right},
        "metadata": {name: str(value) if isinstance(value, bool) else value for name, value in said.items()},
        "suggestions": {"preference": suggestion | ({"score": _read_score(row)} if row.first_wins is not None else {})},
        "responses": {},
        "vectors": {},
    }


def _read_score(row: Preferred) -> float:
    assert row.first_wins is not None
    return row.first_wins if row.chosen_side == "first" else 1 - row.first_wins


def _write_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _name_column(rounds: Sequence[int]) -> str:
    return f"round {rounds[0]}" if len(rounds) == 1 else f"rounds {rounds[0]} to {rounds[-1]}"
