"""Every table and every file of tensors of a round, declared once: its name, its rows, the step that writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .records import (
    Candidate,
    Duel,
    HeldOutAnswer,
    KnownReward,
    Preference,
    ReferenceScore,
    Verdict,
)
from .table import from_parquet, to_parquet

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Table(Generic[Record]):
    """One table of a round.

    Attributes:
        step: The step that writes it, as its folder in the round is called.
        name: The file; of a table in parts, what the names of the parts begin with.
        record: The record of a row.
        in_parts: Whether it is written in numbered parts, each durable before the next is begun.
    """

    step: str
    name: str
    record: type[Record]
    in_parts: bool = False

    def name_part(self, number: int) -> str:
        """Return the file name of one part."""
        return f"{self.name}-{number:04d}.parquet"

    def is_part(self, name: str) -> bool:
        """Return whether a file is this table, or a part of it."""
        return name.startswith(f"{self.name}-") if self.in_parts else name == self.name

    def to_bytes(self, rows: Sequence[Record]) -> bytes:
        """Return rows as a Parquet file."""
        return to_parquet(rows, self.record)

    def from_bytes(self, *files: bytes) -> list[Record]:
        """Return the rows of the file, or of the parts in their order. Raises `RecordError`."""
        return self.join_parts(files)

    def join_parts(self, files: Iterable[bytes]) -> list[Record]:
        """Return the rows of several parts, in the order given. Raises `RecordError`."""
        return [row for data in files for row in from_parquet(data, self.record, self.name)]


@dataclass(frozen=True, slots=True)
class TensorFile:
    """One file of tensors (safetensors) of a round: the step that writes it, and its name."""

    step: str
    name: str


CANDIDATES = Table("sampling", "candidates.parquet", Candidate)
DUELS = Table("sampling", "duels.parquet", Duel)
PREFERENCES = Table("labeling", "preferences", Preference, in_parts=True)
KNOWN_REWARDS = Table("labeling", "rewards.parquet", KnownReward)
REFERENCE_SCORES = Table("policy", "reference.parquet", ReferenceScore)
HELD_OUT_REFERENCE_SCORES = Table("policy", "held_out_reference.parquet", ReferenceScore)
ANSWERS = Table("evaluation", "answers.parquet", HeldOutAnswer)
OPPONENT_ANSWERS = Table("evaluation", "opponent.parquet", HeldOutAnswer)
ONLINE_OPPONENT_ANSWERS = Table("evaluation", "online_opponent.parquet", HeldOutAnswer)
JUDGEMENTS = Table("evaluation", "judgements", Preference, in_parts=True)
ONLINE_JUDGEMENTS = Table("evaluation", "online_judgements", Preference, in_parts=True)
VERDICTS = Table("evaluation", "verdicts.parquet", Verdict)

FEATURES = TensorFile("sampling", "features.safetensors")
OUTSIDE_FEATURES = TensorFile("sampling", "outside_features.safetensors")
PAIR_FEATURES = TensorFile("reward_model", "pairs.safetensors")
REPLAY_BUFFER = TensorFile("reward_model", "buffer.safetensors")
ENSEMBLE = TensorFile("reward_model", "ensemble.safetensors")
