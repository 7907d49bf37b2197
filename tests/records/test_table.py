import io
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oatflow.components.errors import RecordError
from oatflow.components.records.records import Candidate, Duel, Preference, duel_id
from oatflow.components.records.table import from_parquet, to_parquet

DUEL = Duel("d1", "p1", "prompt", "yes", "no", 0, 1, False)
CLASH = Preference("d1", "p1", True, None, None, None, None, "oracle")


def parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("record", [DUEL, CLASH, Candidate("p", 1, "", (), 3, "length")])
def test_records_survive_parquet(record):
    assert from_parquet(to_parquet([record], type(record)), type(record), "f") == [record]


def test_no_records_are_a_table_with_columns():
    assert from_parquet(to_parquet([], Duel), Duel, "f") == []


def test_the_same_records_give_the_same_bytes():
    assert to_parquet([DUEL], Duel) == to_parquet([DUEL], Duel)


def test_a_missing_column_is_named_with_those_there():
    with pytest.raises(RecordError, match=r"duels\.parquet: column 'duel_id' is missing.*there: a"):
        from_parquet(parquet(a=[1]), Duel, "duels.parquet")


def test_an_empty_value_is_named_by_row_and_column():
    rows = {name: [getattr(DUEL, name)] * 2 for name in Duel.__slots__}
    rows["first"] = ["yes", None]
    with pytest.raises(RecordError, match="row 1, column 'first' is empty"):
        from_parquet(parquet(**rows), Duel, "f")


def test_a_column_of_the_wrong_type_is_named():
    rows = {name: [getattr(DUEL, name)] for name in Duel.__slots__} | {"clash": ["no"]}
    with pytest.raises(RecordError, match="column 'clash' holds string"):
        from_parquet(parquet(**rows), Duel, "f")


def test_what_is_no_parquet_file_is_named():
    with pytest.raises(RecordError, match="f: not a readable Parquet file"):
        from_parquet(b"hello", Duel, "f")


def test_a_flipped_byte_in_the_data_is_noticed():
    data = bytearray(to_parquet([DUEL] * 50, Duel))
    data[40] ^= 1
    with pytest.raises(RecordError):
        from_parquet(bytes(data), Duel, "f")


def test_a_duel_is_named_by_its_whole_content():
    assert duel_id("ab", "c", "d") != duel_id("a", "bc", "d")
    assert duel_id("a", "b", "c") == duel_id("a", "b", "c")


ALONE = """
import sys
from pathlib import Path
from oatflow.components.records.records import Prompt
from oatflow.components.records.table import from_parquet, to_parquet

threads = lambda: {task.name: (task / "comm").read_text() for task in Path("/proc/self/task").iterdir()}
before = threads()
data = to_parquet([Prompt(str(number), "text") for number in range(10_000)], Prompt)
assert len(from_parquet(data, Prompt, "prompts")) == 10_000
print(sorted(name for task, name in threads().items() if task not in before), file=sys.stderr)
"""


@pytest.mark.slow
def test_reading_leaves_no_thread_that_could_abort_the_end_of_a_process():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
