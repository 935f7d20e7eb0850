"""A user's own file of rows: JSONL or Parquet with `input_ids` and `mask`, everything else optional.

Each line (or Parquet row) is checked before anything trains, and the first that is wrong is named. Rows without `logprobs` count as
authored: nobody is known to have sampled them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agentloop.dataset.row import Provenance, Row, RowSource
from agentloop.dataset.segment_row import row_id
from agentloop.dataset.store import FORMATS, ParquetRows
from agentloop.errors import Mistake, nearest

_OPTIONAL: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "logprobs": list,
    "advantages": list,
    "token_weights": list,
    "role": str,
    "task": str,
    "reward": (int, float),
    "adapter": str,
    "temperature": (int, float),
    "weight": (int, float),
}
_FIELDS = ("input_ids", "mask", *_OPTIONAL)


def open_rows(path: Path | str) -> RowSource:
    """Rows at `path`: an artifact that `write_rows` wrote (file or folder), or a user's own `.jsonl` or `.parquet` file.

    Raises:
        Mistake: The file is missing, of another kind, or its schema is wrong; `OwnRows` raises for single rows while it is read.
    """
    path = Path(path)
    if path.is_file() and (path.suffix == ".jsonl" or (path.suffix == ".parquet" and not _written_by_us(path))):
        return OwnRows(path)
    if path.is_file() and path.suffix != ".parquet":
        raise Mistake("rows of an unknown kind", file=str(path), found=path.suffix or path.name, expected=".parquet or .jsonl")
    return ParquetRows(path)


def _written_by_us(path: Path) -> bool:
    try:
        kept = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError):
        return True  # ParquetRows says what is wrong with it
    return any(form.key in kept for form in FORMATS)


class OwnRows:
    """A `RowSource` over a user's file. All rows are checked when it is opened, so that training never stops half-way over a bad line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._length = sum(1 for _ in self)
        if self._length == 0:
            raise Mistake("no rows in this file", file=str(path))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Row]:
        records = _jsonl(self.path) if self.path.suffix == ".jsonl" else _parquet(self.path)
        for line, record in records:
            yield _row(record, str(self.path), line)


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as cause:
                raise Mistake(f"not JSON: {cause.msg}", file=str(path), line=number) from cause


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(batch_size=512):
            for record in batch.to_pylist():
                number += 1
                yield number, {key: value for key, value in record.items() if value is not None}


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _row(record: Any, file: str, line: int) -> Row:
    def wrong(message: str, **more: Any) -> Mistake:
        return Mistake(message, file=file, line=line, **more)

    if not isinstance(record, Mapping):
        raise wrong("a row is an object", found=type(record).__name__, expected='{"input_ids": [...], "mask": [...]}')
    for key in record:
        if key not in _FIELDS:
            raise wrong(f"unknown field {key!r}", expected=f"some of {', '.join(_FIELDS)}", nearest=nearest(key, _FIELDS))
    for key in ("input_ids", "mask"):
        if key not in record:
            raise wrong(f"no field {key!r}")
        if not isinstance(record[key], list):
            raise wrong(f"{key!r} must be a list", found=record[key])
    for key, kind in _OPTIONAL.items():
        if key in record and (not isinstance(record[key], kind) or isinstance(record[key], bool)):
            raise wrong(f"{key!r} has the wrong type", found=record[key])
    ids, mask = record["input_ids"], record["mask"]
    numbers = {name: record.get(name) for name in ("logprobs", "advantages", "token_weights")}
    if (other := next((i for i in ids if not _is_id(i)), None)) is not None:
        raise wrong("'input_ids' must hold token ids", found=other)
    for name, values in numbers.items():
        if (other := next((p for p in values or () if isinstance(p, bool) or not isinstance(p, (int, float))), None)) is not None:
            raise wrong(f"{name!r} must hold numbers", found=other)
    if (other := next((m for m in mask if m not in (0, 1)), None)) is not None:
        raise wrong("'mask' must hold 0 and 1", found=other)
    for name, values in {"mask": mask, **numbers}.items():
        if values is not None and len(values) != len(ids):
            raise wrong(f"{name!r} must be as long as 'input_ids'", found=len(values), expected=str(len(ids)))
    if not any(mask):
        raise wrong("nothing to train on: 'mask' is 0 everywhere")
    if mask[0]:
        raise wrong("the first id cannot be trained on: nothing precedes it", expected="mask[0] == 0")
    provenance = Provenance(tree=f"file:{Path(file).name}", turns=(str(line),))
    weight = float(record.get("weight", 1.0))
    return Row(
        id=record.get("id") or row_id(ids, mask, weight, provenance),
        input_ids=tuple(ids),
        mask=tuple(int(m) for m in mask),
        logprobs=_floats(numbers["logprobs"]),
        role=record.get("role", "actor"),
        task=record.get("task", ""),
        reward=float(record.get("reward", 0.0)),
        authored=numbers["logprobs"] is None,
        adapter=record.get("adapter", "base"),
        temperature=float(record.get("temperature", 1.0)),
        provenance=provenance,
        weight=weight,
        advantages=_floats(numbers["advantages"]),
        token_weights=_floats(numbers["token_weights"]),
    )


def _floats(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(map(float, values))
