"""Trees on disk: one Parquet file an artifact, written episode by episode, read back lazily.

While a stage runs, its finished episodes are in a folder beside the artifact (`NAME.parquet.work/`): the latest in an append-only log,
the others in Parquet shards. The invariants:

- an episode outlives the process once `TreeWriter.add` returns, whole (a power cut may cost the last second);
- a shard, and the artifact, appears by a rename or not at all; `pending-K.log` becomes `shard-K.parquet`, so that nothing is read twice;
- memory holds what the log holds (a bounded number of episodes) and the names of the finished ones, no tree;
- the artifact holds each tree once, its fragments joined in the order of their samples, trees in a given order: it does not depend on who
  finished first nor on how often the run was killed.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from agentloop.errors import RunFailed
from agentloop.trace import schema
from agentloop.trace.append_log import AppendLog, read_log
from agentloop.trace.atomic import disk_errors, publish
from agentloop.trace.tree import Tree

SHARD_EPISODES = 256
SHARD_BYTES = 16 << 20
_FRAGMENT_ROWS = 32  # rows of a row group in a shard: what is decoded at once to find one fragment
_TREE_ROWS = 64  # most rows of a row group in an artifact
_TREE_BYTES = 8 << 20
_CACHED_GROUPS = 8


class UnreadableTrace(RunFailed):
    """A file that is not a trace, is damaged, or was written by a version that this one does not read."""


class _Place(NamedTuple):
    """Where a fragment lies: the number of its shard, and its row there."""

    shard: int
    row: int


class TreeWriter:
    """Collects the finished episodes of a stage and makes one artifact of them. Opening the same path again goes on where it was left.

    Safe to call from several threads. As a context manager it closes its files on leaving; only `finish` makes the artifact.

    Args:
        path: The artifact, `.../NAME.parquet`.
        shard_episodes: Episodes after which the log becomes a shard.
        shard_bytes: Bytes of the log after which it does.

    Attributes:
        finished: (tree id, sample) of every episode that is on the disk.
    """

    def __init__(self, path: str | os.PathLike[str], *, shard_episodes: int = SHARD_EPISODES, shard_bytes: int = SHARD_BYTES) -> None:
        self.path = Path(path)
        self.folder = self.path.with_name(self.path.name + ".work")
        self.finished: set[tuple[str, int]] = set()
        self._shard_episodes = shard_episodes
        self._shard_bytes = shard_bytes
        self._places: dict[str, list[tuple[tuple[int, ...], _Place]]] = {}
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        self._log: AppendLog | None = None
        self._next_shard = 0
        self._lock = threading.Lock()
        self._complete = self.path.exists()
        if self._complete:
            for tree_id, samples in _names(self.path):
                self.finished.update(_keys(tree_id, samples))
        else:
            self._reopen()

    def add(self, fragment: Tree) -> None:
        """Store one or more finished episodes of a tree; a kill after this returns does not lose them.

        Raises:
            ValueError: One of its samples is there already, or the artifact is finished.
            RunFailed: The disk is full; what was added before is kept.
        """
        with self._lock:
            if self._complete:
                raise ValueError(f"{self.path} is finished; nothing can be added to it")
            twice = self.finished.intersection(_keys(fragment.id, fragment.samples))
            if twice:
                raise ValueError(f"{self.path}: sample {min(twice)[1]} of tree {fragment.id!r} is there already")
            rows = schema.batch([fragment])
            with disk_errors(self.path):
                if self._log is None:
                    self._log = AppendLog(self.folder / f"pending-{self._next_shard:06d}.log")
                self._log.append(memoryview(rows.serialize()))
            self._note(fragment.id, fragment.samples, _Place(self._next_shard, len(self._pending)))
            self._pending.append(rows)
            self._pending_bytes += rows.nbytes
            if len(self._pending) >= self._shard_episodes or self._pending_bytes >= self._shard_bytes:
                self._roll()

    def holds(self, fragment: Tree) -> bool:
        """Whether every sample of the fragment is there already (of a tree without samples, the tree)."""
        return _keys(fragment.id, fragment.samples) <= self.finished

    def fragments(self) -> Iterator[Tree]:
        """What has been added so far, in the order in which it was."""
        if self._complete:
            yield from read_trees(self.path)
            return
        with self._lock:
            shards, pending = range(self._next_shard), list(self._pending)
        for number in shards:
            yield from read_trees(self._shard(number))
        for rows in pending:
            yield from schema.trees(rows)

    def finish(self, order: Sequence[str] = ()) -> Path:
        """Make the artifact: the trees of `order` first, in that order, then the others by id. Does nothing if it is there already.

        Raises:
            RunFailed: The disk is full; what was added is kept.
        """
        with self._lock, disk_errors(self.path):
            if not self._complete:
                self._roll()
                first = [tree_id for tree_id in dict.fromkeys(order) if tree_id in self._places]
                rest = sorted(self._places.keys() - set(first))
                with publish(self.path) as temporary:
                    _write(temporary, self._merged([*first, *rest]))
                self._complete = True
            shutil.rmtree(self.folder, ignore_errors=True)
        return self.path

    def close(self) -> None:
        """Close the files; what was added stays for the next time."""
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None

    def __enter__(self) -> TreeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reopen(self) -> None:
        """Take up what an earlier writer left: whole shards, whole records of its log, nothing half-written."""
        with disk_errors(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in [*self.folder.glob("*.tmp"), *self.path.parent.glob(f".{self.path.name}.*.tmp")]:
                leftover.unlink()
            logs = sorted(self.folder.glob("pending-*.log"))
            for log in logs:
                number = int(log.stem.removeprefix("pending-"))
                if not self._shard(number).exists():
                    rows = [pa.ipc.read_record_batch(pa.py_buffer(record), schema.TREES) for record in read_log(log)]
                    if rows:
                        _write_shard(self._shard(number), rows)
                log.unlink()
        while self._shard(self._next_shard).exists():
            for row, (tree_id, samples) in enumerate(_names(self._shard(self._next_shard))):
                self._note(tree_id, samples, _Place(self._next_shard, row))
            self._next_shard += 1

    def _note(self, tree_id: str, samples: Sequence[int], place: _Place) -> None:
        self.finished.update(_keys(tree_id, samples))
        self._places.setdefault(tree_id, []).append((tuple(samples), place))

    def _roll(self) -> None:
        """Make a shard of the log."""
        if not self._pending:
            return
        with disk_errors(self.path):
            _write_shard(self._shard(self._next_shard), self._pending)
        self._next_shard += 1
        self._pending = []
        self._pending_bytes = 0
        if self._log is not None:
            self._log.close()
            self._log.path.unlink()
            self._log = None

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.parquet"

    def _merged(self, tree_ids: Sequence[str]) -> Iterator[pa.RecordBatch]:
        groups: OrderedDict[tuple[int, int], pa.RecordBatch] = OrderedDict()

        def fragment(place: _Place) -> pa.RecordBatch:
            group, row = divmod(place.row, _FRAGMENT_ROWS)
            key = (place.shard, group)
            if key not in groups:
                while len(groups) >= _CACHED_GROUPS:
                    groups.popitem(last=False)
                with pq.ParquetFile(self._shard(place.shard)) as file:
                    groups[key] = file.read_row_group(group).combine_chunks().to_batches()[0]
            groups.move_to_end(key)
            found = groups[key].slice(row, 1)
            return found if found.schema.equals(schema.TREES) else schema.batch(schema.trees(found))  # a shard of an earlier version

        for tree_id in tree_ids:
            rows = [fragment(place) for _, place in sorted(self._places[tree_id])]
            if len(rows) == 1:
                yield rows[0]
            else:
                yield schema.batch([Tree.merge([tree for row in rows for tree in schema.trees(row)])])


def write_trees(path: str | os.PathLike[str], trees: Iterable[Tree]) -> Path:
    """Write whole trees, in the order given, as an artifact that appears at once; memory does not grow with their number."""
    target = Path(path)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with publish(target) as temporary:
            _write(temporary, (schema.batch([tree]) for tree in trees))
    return target


def read_trees(path: str | os.PathLike[str]) -> Iterator[Tree]:
    """The trees of an artifact, one after another, a few in memory at a time.

    Raises:
        UnreadableTrace: It is missing, damaged, or of another version.
    """
    with _opened(Path(path)) as file:
        for rows in file.iter_batches(batch_size=8):
            yield from schema.trees(rows)


def read_columns(path: str | os.PathLike[str], columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """Only some columns, a tree at a time, for reports: "task", "samples", "turns.reward", "turns.success", "failures.kind", ...

    Each yields a dict like `{"task": ..., "turns": [{"reward": ...}, ...]}`; ids and log-probabilities are not read unless named.

    Raises:
        UnreadableTrace: As `read_trees`, or there is no such column.
    """
    names = [".list.element.".join(name.split(".", 1)) for name in columns]
    with _opened(Path(path)) as file:
        known = {file.schema.column(index).path for index in range(file.metadata.num_columns)}
        for column, name in zip(columns, names, strict=True):
            if not any(path == name or path.startswith(f"{name}.") for path in known):
                raise UnreadableTrace(f"{path}: trees have no column {column!r}")
        for rows in file.iter_batches(batch_size=64, columns=names):
            yield from rows.to_pylist()


def count_trees(path: str | os.PathLike[str]) -> int:
    """How many trees an artifact holds, without reading them."""
    with _opened(Path(path)) as file:
        return int(file.metadata.num_rows)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file of trees; what goes wrong while it is read is an `UnreadableTrace` that names it."""
    try:
        with pq.ParquetFile(path) as file:
            version = (file.schema_arrow.metadata or {}).get(schema.VERSION_KEY)
            if version is None:
                raise UnreadableTrace(f"{path} is a Parquet file, but not one of trees")
            if version not in schema.READABLE:
                found, most = version.decode(errors="replace"), schema.VERSION
                raise UnreadableTrace(f"{path} was written with trace version {found}; this agentloop reads versions up to {most}")
            yield file
    except FileNotFoundError as error:
        raise UnreadableTrace(f"{path} does not exist") from error
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UnreadableTrace(f"{path} is damaged and cannot be read: {error}") from error


def _names(path: Path) -> Iterator[tuple[str, list[int]]]:
    for row in read_columns(path, ("id", "samples")):
        yield row["id"], row["samples"]


def _keys(tree_id: str, samples: Sequence[int]) -> set[tuple[str, int]]:
    """What stands for a fragment in `finished`; a tree without samples counts as one."""
    return {(tree_id, sample) for sample in samples} or {(tree_id, -1)}


def _write_shard(path: Path, rows: Sequence[pa.RecordBatch]) -> None:
    with publish(path) as temporary:
        pq.write_table(pa.Table.from_batches(rows), temporary, compression="zstd", row_group_size=_FRAGMENT_ROWS)


def _write(path: Path, rows: Iterable[pa.RecordBatch]) -> None:
    with pq.ParquetWriter(path, schema.TREES, compression="zstd") as file:
        group: list[pa.RecordBatch] = []
        size = 0
        for row in rows:
            group.append(row)
            size += row.nbytes
            if len(group) >= _TREE_ROWS or size >= _TREE_BYTES:
                file.write_table(pa.Table.from_batches(group).combine_chunks())
                group, size = [], 0
        if group:
            file.write_table(pa.Table.from_batches(group).combine_chunks())
