"""Numbers in columns: as people read them, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """A name, one value a row, and how a value is written. None: not measured."""

    head: str
    values: tuple[Cell, ...]
    shown: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length."""

    columns: tuple[Column, ...]

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.head for column in self.columns)

    @property
    def body(self) -> tuple[tuple[str, ...], ...]:
        """Rows as people read them."""
        return tuple(
            zip(*(tuple(column.shown(value) for value in column.values) for column in self.columns), strict=True)
        )

    @property
    def csv(self) -> str:
        """Rows as programs read them: shares between 0 and 1, six digits, nothing where nothing was measured."""
        written = io.StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(self.head)
        rows = zip(*(column.values for column in self.columns), strict=True)
        writer.writerows([_raw_text(value) for value in row] for row in rows)
        return written.getvalue()


def _raw_text(value: Cell) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
