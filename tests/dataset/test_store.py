"""Rows on disk: the same rows come back, from any layout, and a file is there whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.dataset.row import Provenance, Row
from agentloop.dataset.schema import SCHEMA, VERSION_KEY
from agentloop.dataset.store import ParquetRows, content_hash, write_rows
from agentloop.errors import Mistake

names = st.text(max_size=5)
lists = st.integers(0, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 2**31 - 1), min_size=n, max_size=n),
        st.lists(st.integers(0, 1), min_size=n, max_size=n),
        st.none() | st.lists(st.floats(-30, 0, width=32), min_size=n, max_size=n),
        st.none() | st.lists(st.floats(-9, 9, width=32), min_size=n, max_size=n),
        st.none() | st.lists(st.floats(-9, 9, width=32), min_size=n, max_size=n),
    )
)


@st.composite
def any_row(draw: st.DrawFn) -> Row:
    ids, mask, logprobs, advantages, token_weights = draw(lists)
    where = Provenance(
        draw(names),
        tuple(draw(st.lists(names, max_size=3))),
        tuple(draw(st.lists(names, max_size=2))),
        draw(names),
        draw(st.integers(0, 9)),
        tuple(draw(st.lists(names, max_size=2))),
    )
    number = st.floats(-1e6, 1e6)
    return Row(
        draw(names),
        tuple(ids),
        tuple(mask),
        None if logprobs is None else tuple(logprobs),
        draw(names),
        draw(names),
        draw(number),
        draw(st.booleans()),
        draw(names),
        draw(number),
        where,
        draw(number),
        None if advantages is None else tuple(advantages),
        None if token_weights is None else tuple(token_weights),
    )


def simple(number: int) -> Row:
    return Row(f"row-{number}", (1, 2, number), (0, 1, 1), None, "actor", "t", 1.0, True, "base", 1.0, Provenance("tree", ("0.0",)))


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(any_row(), max_size=7), group=st.integers(1, 4))
def test_rows_come_back_as_they_were_and_in_order(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], group: int):
    path = tmp_path_factory.mktemp("rows") / "a.parquet"
    assert write_rows(path, rows, rows_per_group=group) == len(rows)
    source = ParquetRows(path)
    assert len(source) == len(rows)
    assert list(source) == rows
    assert list(source) == rows, "a source can be read again"


def test_the_content_hash_is_of_the_rows_and_not_of_their_layout(tmp_path: Path):
    rows = [simple(number) for number in range(10)]
    write_rows(tmp_path / "whole" / "a.parquet", rows)
    write_rows(tmp_path / "cut" / "b.parquet", rows[:4], rows_per_group=3)
    write_rows(tmp_path / "cut" / "a.parquet", rows[4:], rows_per_group=2)
    whole, cut = ParquetRows(tmp_path / "whole"), ParquetRows(tmp_path / "cut")
    assert [row.id for row in cut] == [f"row-{n}" for n in [*range(4, 10), *range(4)]], "files in the order of their names"
    assert whole.content_hash() == cut.content_hash() == content_hash(rows)
    assert content_hash(rows[:9]) != content_hash(rows)
    assert content_hash([*rows, rows[0]]) != content_hash(rows), "a row that is there twice counts twice"


@pytest.mark.parametrize(
    "changed",
    [{"mask": (0, 1, 0)}, {"weight": 2.0}, {"reward": 0.5}, {"logprobs": (0.0, -1.0, -1.0)}, {"task": "u"}, {"input_ids": (1, 2, 3)}],
)
def test_everything_in_a_row_enters_the_content_hash(changed: dict[str, object]):
    from dataclasses import replace

    assert content_hash([replace(simple(0), **changed)]) != content_hash([simple(0)])  # type: ignore[arg-type]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path):
    target = tmp_path / "rows.parquet"

    def broken():
        yield from (simple(number) for number in range(5))
        assert not target.exists()
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_rows(target, broken(), rows_per_group=2)
    assert list(tmp_path.iterdir()) == []


def test_rows_are_written_as_they_come(tmp_path: Path):
    alive: list[int] = []

    def stream():
        for number in range(40):
            alive.append(number)
            yield simple(number)

    assert write_rows(tmp_path / "a.parquet", stream(), rows_per_group=8) == 40
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 5
    first = next(iter(ParquetRows(tmp_path / "a.parquet")))
    assert first.id == "row-0"


def test_a_partial_file_of_a_killed_writer_is_not_read(tmp_path: Path):
    write_rows(tmp_path / "a.parquet", [simple(0)])
    (tmp_path / ".b.parquet.1234.partial").write_bytes(b"PAR1")
    (tmp_path / ".c.parquet").write_bytes(b"PAR1")
    assert len(ParquetRows(tmp_path)) == 1


def test_rows_of_version_1_are_read_and_have_no_context(tmp_path: Path):
    import pyarrow.compute as pc

    write_rows(tmp_path / "new.parquet", [simple(0)])
    table = pq.read_table(tmp_path / "new.parquet")
    where = table["provenance"].combine_chunks()
    names = ["tree", "turns", "verdicts", "stage", "iteration"]
    older = pa.StructArray.from_arrays([pc.struct_field(where, name) for name in names], names=names)
    table = table.set_column(table.schema.get_field_index("provenance"), pa.field("provenance", older.type, nullable=False), older)
    table = table.drop_columns(["advantages", "token_weights"])
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"1"}), tmp_path / "old.parquet")
    assert list(ParquetRows(tmp_path / "old.parquet")) == [simple(0)]


@pytest.mark.parametrize(("version", "lacks"), [(b"2", ["advantages", "token_weights"]), (b"3", ["token_weights"])])
def test_rows_of_earlier_versions_are_read_and_lack_what_came_later(tmp_path: Path, version: bytes, lacks: list[str]):
    numbers = (0.0, 1.5, -2.0)
    row = replace(simple(0), advantages=numbers, token_weights=numbers)
    older = replace(row, **dict.fromkeys(lacks))
    write_rows(tmp_path / "new.parquet", [row])
    table = pq.read_table(tmp_path / "new.parquet").drop_columns(lacks)
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: version}), tmp_path / "old.parquet")
    assert list(ParquetRows(tmp_path / "old.parquet")) == [older]
    assert ParquetRows(tmp_path / "old.parquet").content_hash() == content_hash([older]) != content_hash([row])
    assert content_hash([replace(row, advantages=None)]) != content_hash([replace(row, token_weights=None)])


def test_what_a_killed_writer_left_is_gone_once_the_rows_are_written_again(tmp_path: Path):
    program = (
        "import os, signal, sys; sys.path.insert(0, os.getcwd())\n"
        "from tests.dataset.test_store import simple\n"
        "from agentloop.dataset.store import write_rows\n"
        "def rows():\n    yield simple(0)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_rows({str(tmp_path / 'a.parquet')!r}, rows(), rows_per_group=1)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1, "the writer was to be killed in the middle of a file"
    write_rows(tmp_path / "a.parquet", [simple(0)])
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def other_schema(path: Path, schema: pa.Schema) -> Path:
    pq.write_table(schema.empty_table(), path)
    return path


def test_what_is_no_file_of_rows_is_refused_with_the_reason(tmp_path: Path):
    (tmp_path / "text.parquet").write_text("hello")
    versioned = {VERSION_KEY: b"4"}
    renamed = pa.schema([field.with_name("maks") if field.name == "mask" else field for field in SCHEMA], metadata=versioned)
    retyped = pa.schema([pa.field("mask", pa.string()) if field.name == "mask" else field for field in SCHEMA], metadata=versioned)
    newer = SCHEMA.with_metadata({VERSION_KEY: b"7"})
    cases = {
        "no such file of rows": tmp_path / "missing.parquet",
        "not a Parquet file": tmp_path / "text.parquet",
        "not a file that agentloop wrote": other_schema(tmp_path / "foreign.parquet", pa.schema([("input_ids", pa.list_(pa.int32()))])),
        "another schema version; found '7'; expected 1 or 2 or 3 or 4": other_schema(tmp_path / "new.parquet", newer),
        "no column 'mask'; did you mean 'maks'": other_schema(tmp_path / "renamed.parquet", renamed),
        "column 'mask' has another type; found 'string'": other_schema(tmp_path / "retyped.parquet", retyped),
    }
    (tmp_path / "empty").mkdir()
    cases["no rows here"] = tmp_path / "empty"
    for message, path in cases.items():
        with pytest.raises(Mistake) as refused:
            ParquetRows(path)
        assert message in str(refused.value) and str(path) in str(refused.value)
