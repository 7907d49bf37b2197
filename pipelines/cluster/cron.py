"""When a schedule runs: cron with six fields, seconds first, as Kubeflow Pipelines reads it.

Most people write five fields. KFP takes five, too, and reads them from the seconds on: ``0 2 * * *``, meant for every
night at two, then runs every hour at two minutes past. So five are refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from cron_descriptor import Options, get_description
from croniter import CroniterBadDateError, croniter
from oatflow.components.errors import RefusedInput

MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
DAYS = "sun mon tue wed thu fri sat".split()
EXAMPLE = "'0 0 2 * * *' is every day at 02:00"
_PART = re.compile(r"(?:[*?]|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d+))?")


@dataclass(frozen=True, slots=True)
class _Field:
    """One place of a cron expression: its name, its range, and the words that may stand for numbers."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        """Read a number, or a word such as ``mon``. Raises `ValueError`."""
        number = self.low + self.words.index(text.lower()) if text.lower() in self.words else int(text)
        if not self.low <= number <= self.high:
            raise ValueError(text)
        return number


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, tuple(MONTHS)),
    _Field("day of the week", 0, 6, tuple(DAYS)),
)


def check_cron(text: str) -> str:
    """Return the expression with single spaces. Raises `RefusedInput` with what to write instead."""
    given = text.split()
    cron = " ".join(given)
    if len(given) == 5:
        raise RefusedInput(f"cron={text!r}: Kubeflow Pipelines wants six fields, seconds first; write '0 {cron}'")
    if len(given) != 6:
        raise RefusedInput(
            f"cron={text!r}: {len(given)} fields; write six: second minute hour day month weekday; {EXAMPLE}"
        )
    for field, value in zip(_FIELDS, given, strict=True):
        _check_field(text, field, value)
    if not _is_any(given[3]) and not _is_any(given[5]):
        raise RefusedInput(
            f"cron={text!r}: names both a day of the month and a day of the week, which runs on the days that are "
            "either; give one of them, and * for the other"
        )
    try:
        _find_next(cron, datetime.now(UTC), 1)
    except CroniterBadDateError as error:
        raise RefusedInput(f"cron={text!r}: there is no such day in the calendar; {EXAMPLE}") from error
    return cron


def in_words(cron: str) -> str:
    """Say when a checked expression runs, such as ``at 02:00, every day (UTC)``."""
    options = Options()
    options.use_24hour_time_format = True
    words = get_description(cron.replace("?", "*"), options)
    if words.startswith("At ") and cron.split()[3:] == ["*", "*", "*"]:
        words += ", every day"
    return f"{words[0].lower()}{words[1:]} (UTC)"


def next_times(cron: str, after: datetime, count: int = 3) -> list[datetime]:
    """Return the next times at which a checked expression runs."""
    return _find_next(cron, after, count)


def _find_next(cron: str, after: datetime, count: int) -> list[datetime]:
    times = croniter(cron.replace("?", "*"), after, second_at_beginning=True)
    return [times.get_next(datetime) for _ in range(count)]


def _is_any(value: str) -> bool:
    return value in ("*", "?")


def _check_field(text: str, field: _Field, value: str) -> None:
    for part in value.split(","):
        try:
            _check_part(field, part)
        except ValueError as error:
            words = f" or {field.words[0]} to {field.words[-1]}" if field.words else ""
            raise RefusedInput(
                f"cron={text!r}: {field.name} {part!r}: expected *, {field.low} to {field.high}{words}, "
                f"a range such as {field.low}-{field.high}, or a step such as */2"
            ) from error


def _check_part(field: _Field, part: str) -> None:
    """Raise `ValueError` for what is no value, range or step of this field."""
    found = _PART.fullmatch(part)
    if found is None or (found["step"] is not None and int(found["step"]) == 0):
        raise ValueError(part)
    if found["low"] is not None:
        low = field.number(found["low"])
        if found["high"] is not None and field.number(found["high"]) < low:
            raise ValueError(part)
