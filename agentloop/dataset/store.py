"""Rows as a Parquet artifact: written as a stream, appearing by an atomic rename or not at all, read back lazily.

A path is one `.parquet` file, or a folder whose `.parquet` files are read in the order of their names. Memory holds one row group,
whatever the run's size. The content hash is that of the *set* of rows: how they are cut into files and row groups, and their order, do
not enter it (trainers order rows by id, so the order means nothing).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agentloop.dataset.row import Row, RowSource
from agentloop.dataset.schema import SCHEMA, VERSION, VERSION_KEY, from_record, row_digest, to_record
from agentloop.errors import Mistake, nearest

ROWS_PER_GROUP = 512


def write_rows(path: Path | str, rows: Iterable[Row], *, rows_per_group: int = ROWS_PER_GROUP) -> int:
    """Write rows to the file `path` and return how many there were; no rows make a valid, empty file.

    The file appears by a rename once all of it is on disk. If `rows` raises, nothing appears and what was written is removed; what a
    killed process left is written over.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    count = 0
    stream = iter(rows)
    try:
        with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
            while group := list(islice(stream, rows_per_group)):
                writer.write_table(pa.Table.from_pylist([to_record(row) for row in group], schema=SCHEMA))
                count += len(group)
        _to_disk(partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


class ParquetRows:
    """A `RowSource` over a Parquet file, or a folder of them, that `write_rows` wrote.

    Raises:
        Mistake: The path does not exist, is no Parquet file, has another schema version, or lacks a column.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            self.files = sorted(file for file in self.path.glob("*.parquet") if not file.name.startswith("."))
        else:
            self.files = [self.path]
        if not self.files:
            raise Mistake("no rows here", file=str(self.path), expected="a .parquet file, or a folder of them")
        self._length = sum(_checked(file).num_rows for file in self.files)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Row]:
        for file in self.files:
            with pq.ParquetFile(file) as parquet:
                for group in range(parquet.num_row_groups):
                    for record in parquet.read_row_group(group).to_pylist():
                        yield from_record(record)

    def content_hash(self) -> str:
        """SHA-256 in hex that depends on the rows only, not on files, row groups, compression or order."""
        return content_hash(self)


def content_hash(rows: RowSource) -> str:
    """The hash of a set of rows; a stream of any length is hashed in constant memory (sum of the rows' digests modulo 2**256)."""
    total = 0
    for row in rows:
        total += int.from_bytes(row_digest(row), "big")
    return f"{total % 2**256:064x}"


def _checked(file: Path) -> pq.FileMetaData:
    """The file's metadata, once its schema is known to be ours."""
    if not file.is_file():
        raise Mistake("no such file of rows", file=str(file))
    try:
        metadata = pq.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowInvalid, OSError) as cause:
        raise Mistake(f"not a Parquet file: {str(cause).splitlines()[0]}", file=str(file)) from cause
    version = (schema.metadata or {}).get(VERSION_KEY)
    if version is None:
        raise Mistake(
            "not a file that agentloop wrote",
            file=str(file),
            expected="rows made by a build stage; for one's own rows see agentloop.dataset.row_file",
        )
    if version != str(VERSION).encode():
        raise Mistake("rows of another schema version", file=str(file), found=version.decode(), expected=str(VERSION))
    for column in SCHEMA:
        if column.name not in schema.names:
            raise Mistake(f"no column {column.name!r}", file=str(file), nearest=nearest(column.name, set(schema.names) - set(SCHEMA.names)))
        found = schema.field(column.name).type
        if found != column.type:
            raise Mistake(f"column {column.name!r} has another type", file=str(file), found=str(found), expected=str(column.type))
    return metadata
