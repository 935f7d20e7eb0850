"""Rows as a Parquet artifact: written as a stream, appearing by an atomic rename or not at all, read back lazily.

A path is one `.parquet` file, or a folder whose `.parquet` files are read in the order of their names. Memory holds one row group,
whatever the run's size. The content hash is that of the *set* of rows: how they are cut into files and row groups, and their order, do
not enter it (trainers order rows by id, so the order means nothing). Rows of both kinds are kept so, each under a schema of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Generic

import pyarrow as pa
import pyarrow.parquet as pq

from agentloop.dataset.preference_row import PreferenceRow
from agentloop.dataset.preference_schema import PREFERENCES
from agentloop.dataset.row import Row
from agentloop.dataset.row_format import R, RowFormat
from agentloop.dataset.schema import ROWS
from agentloop.errors import Mistake, nearest

ROWS_PER_GROUP = 512

FORMATS: tuple[RowFormat[Any], ...] = (ROWS, PREFERENCES)


def write_rows(path: Path | str, rows: Iterable[R], *, form: RowFormat[R] = ROWS, rows_per_group: int = ROWS_PER_GROUP) -> int:  # type: ignore[assignment]
    """Write rows of one kind to the file `path` and return how many there were; no rows make a valid, empty file.

    The file appears by a rename once all of it is on disk. If `rows` raises, nothing appears and what was written is removed; what a
    killed process left is written over.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    count = 0
    stream = iter(rows)
    try:
        with pq.ParquetWriter(partial, form.schema, compression="zstd") as writer:
            while group := list(islice(stream, rows_per_group)):
                writer.write_table(pa.Table.from_pylist([form.to_record(row) for row in group], schema=form.schema))
                count += len(group)
        _to_disk(partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


class ParquetSource(Generic[R]):
    """Rows of one kind from a Parquet file, or a folder of them, that `write_rows` wrote.

    Raises:
        Mistake: The path does not exist, is no Parquet file, holds something else, has another schema version, or lacks a column.
    """

    def __init__(self, path: Path | str, form: RowFormat[R]) -> None:
        self.path = Path(path)
        self.form = form
        self.files = _files(self.path)
        self._length = sum(_checked(file, form).num_rows for file in self.files)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[R]:
        for file in self.files:
            with pq.ParquetFile(file) as parquet:
                for group in range(parquet.num_row_groups):
                    for record in parquet.read_row_group(group).to_pylist():
                        yield self.form.from_record(record)

    def content_hash(self) -> str:
        """SHA-256 in hex that depends on the rows only, not on files, row groups, compression or order."""
        return content_hash(self, self.form)


class ParquetRows(ParquetSource[Row]):
    """A `RowSource`: see `ParquetSource`."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, ROWS)


class ParquetPreferences(ParquetSource[PreferenceRow]):
    """A `PreferenceSource`: see `ParquetSource`."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, PREFERENCES)


def open_source(path: Path | str) -> ParquetRows | ParquetPreferences:
    """Rows of whichever kind lies at `path`. Raises `Mistake` as `ParquetSource`."""
    return ParquetPreferences(path) if written_as(_files(Path(path))[0]) is PREFERENCES else ParquetRows(path)


def written_as(file: Path) -> RowFormat[Any] | None:
    """The format that a Parquet file was written in; None where it is none of ours, or no Parquet file."""
    try:
        kept = pq.read_schema(file).metadata or {}
    except (pa.ArrowInvalid, OSError):
        return None
    return next((form for form in FORMATS if form.key in kept), None)


def content_hash(rows: Iterable[R], form: RowFormat[R] = ROWS) -> str:  # type: ignore[assignment]
    """The hash of a set of rows; a stream of any length is hashed in constant memory (sum of the rows' digests modulo 2**256)."""
    total = 0
    for row in rows:
        total += int.from_bytes(form.digest(row), "big")
    return f"{total % 2**256:064x}"


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.glob("*.parquet") if not file.name.startswith("."))
    if not files:
        raise Mistake("no rows here", file=str(path), expected="a .parquet file, or a folder of them")
    return files


def _checked(file: Path, form: RowFormat[Any]) -> pq.FileMetaData:
    """The file's metadata, once its schema is known to be one of the format's."""
    if not file.is_file():
        raise Mistake("no such file of rows", file=str(file))
    try:
        metadata = pq.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowInvalid, OSError) as cause:
        raise Mistake(f"not a Parquet file: {str(cause).splitlines()[0]}", file=str(file)) from cause
    kept = schema.metadata or {}
    version = kept.get(form.key)
    if version is None:
        other = next((other for other in FORMATS if other.key in kept), None)
        raise Mistake(
            f"this file holds {other.what}" if other else "not a file that agentloop wrote",
            file=str(file),
            expected=form.what if other else "rows made by a build stage; for one's own rows see agentloop.dataset.row_file",
        )
    if version not in form.versions:
        known = " or ".join(known.decode() for known in form.versions)
        raise Mistake(f"{form.what} of another schema version", file=str(file), found=version.decode(), expected=known)
    wanted = form.versions[version]
    for column in wanted:
        if column.name not in schema.names:
            raise Mistake(f"no column {column.name!r}", file=str(file), nearest=nearest(column.name, set(schema.names) - set(wanted.names)))
        found = schema.field(column.name).type
        if found != column.type:
            raise Mistake(f"column {column.name!r} has another type", file=str(file), found=str(found), expected=str(column.type))
    return metadata
