"""Records to Parquet and back; errors name file, row and column."""

from __future__ import annotations

import dataclasses
import io
import types
import typing
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import RecordError

Record = TypeVar("Record")

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def to_parquet(records: Sequence[Record], kind: type[Record]) -> bytes:
    """Serialise records of one kind. The same records give the same bytes."""
    schema = schema_of(kind)
    columns = {
        field.name: pa.array([_as_plain(getattr(record, field.name)) for record in records], type=field.type)
        for field in schema
    }
    return _to_bytes(pa.table(columns, schema=schema))


def from_parquet(data: bytes, kind: type[Record], name: str) -> list[Record]:
    """Read records; `name` is the file's name in errors.

    Raises `RecordError` where a column is missing that must have values, has another type, or holds a null that the
    record does not allow.
    """
    try:
        table = read_table(data)
    except (pa.ArrowInvalid, OSError) as error:
        raise RecordError(f"{name}: not a readable Parquet file ({error})") from error
    return _to_records(table, kind, name)


def find_rows(data: bytes, kind: type[Record], name: str, column: str, wanted: Collection[str]) -> list[Record]:
    """Read the records whose `column` has a wanted value; the others cost next to nothing."""
    table = read_table(data)
    chosen = table.filter(pc.is_in(table.column(column), pa.array(sorted(wanted), pa.string())))
    return _to_records(chosen, kind, name)


def append_rows(data: bytes, records: Sequence[Record], kind: type[Record]) -> bytes:
    """Return a Parquet file with those records behind the ones that it has."""
    tables = [read_table(data), read_table(to_parquet(records, kind))]
    return _to_bytes(pa.concat_tables(tables, promote_options="default").cast(schema_of(kind)).combine_chunks())


def read_table(data: bytes) -> pa.Table:
    """Read a Parquet file that is in memory, and verify its checksums. Raises `pa.ArrowInvalid` and `OSError`.

    Without threads: one of Arrow's that still holds a Python object when the interpreter ends may abort the process
    (apache/arrow#34314), and a step that has done all its work would count as failed.
    """
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(use_threads=False)


def schema_of(kind: type[Any]) -> pa.Schema:
    """Derive the Arrow schema from a record's annotations."""
    hints = typing.get_type_hints(kind)
    return pa.schema([_arrow_field(field.name, hints[field.name]) for field in dataclasses.fields(kind)])


def _to_records(table: pa.Table, kind: type[Record], name: str) -> list[Record]:
    expected = schema_of(kind)
    _check_columns(table, expected, kind, name)
    rows = table.select([name for name in expected.names if name in table.column_names]).to_pylist()
    lists = [field.name for field in expected if pa.types.is_list(field.type)]
    for row in rows:
        for column in lists:
            row[column] = None if row.get(column) is None else tuple(row[column])
    return [kind(**row) for row in rows]


def _to_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _arrow_field(name: str, hint: Any) -> pa.Field:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    (kind,) = [option for option in options if option is not types.NoneType]
    if typing.get_origin(kind) is tuple:
        return pa.field(name, pa.list_(_ARROW[typing.get_args(kind)[0]]), nullable=len(options) == 2)
    return pa.field(name, _ARROW[kind], nullable=len(options) == 2)


def _as_plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_columns(table: pa.Table, expected: pa.Schema, kind: type[Any], name: str) -> None:
    for field in expected:
        if field.name not in table.column_names and field.nullable:
            continue
        if field.name not in table.column_names:
            raise RecordError(
                f"{name}: column {field.name!r} is missing; a {kind.__name__} needs it. "
                f"Columns there: {', '.join(table.column_names) or 'none'}"
            )
        column = table.column(field.name)
        if column.type != field.type:
            needs = f"a {kind.__name__} needs {field.type}"
            raise RecordError(f"{name}: column {field.name!r} holds {column.type}, {needs}")
        if column.null_count and not field.nullable:
            row = column.is_null().to_pylist().index(True)
            raise RecordError(f"{name}: row {row}, column {field.name!r} is empty; a {kind.__name__} needs a value")
