"""How a row lies in an Arrow table: the schema, its version, and both directions of the conversion."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from agentloop.dataset.row import Provenance, Row

VERSION = 1
"""Version of the schema, kept in each file's metadata under `VERSION_KEY`; a reader refuses versions that it does not know."""

VERSION_KEY = b"agentloop.rows.version"
COUNT_KEY = b"agentloop.rows.count"

_PROVENANCE = pa.struct(
    [
        ("tree", pa.string()),
        ("turns", pa.list_(pa.string())),
        ("verdicts", pa.list_(pa.string())),
        ("stage", pa.string()),
        ("iteration", pa.int32()),
    ]
)

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("mask", pa.list_(pa.int8()), nullable=False),
        pa.field("logprobs", pa.list_(pa.float32())),
        pa.field("role", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("authored", pa.bool_(), nullable=False),
        pa.field("adapter", pa.string(), nullable=False),
        pa.field("temperature", pa.float64(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("provenance", _PROVENANCE, nullable=False),
    ],
    metadata={VERSION_KEY: str(VERSION).encode()},
)


def to_record(row: Row) -> dict[str, Any]:
    """The row as plain values, one a column of `SCHEMA`."""
    where = row.provenance
    return {
        "id": row.id,
        "input_ids": list(row.input_ids),
        "mask": list(row.mask),
        "logprobs": None if row.logprobs is None else list(row.logprobs),
        "role": row.role,
        "task": row.task,
        "reward": row.reward,
        "authored": row.authored,
        "adapter": row.adapter,
        "temperature": row.temperature,
        "weight": row.weight,
        "provenance": {
            "tree": where.tree,
            "turns": list(where.turns),
            "verdicts": list(where.verdicts),
            "stage": where.stage,
            "iteration": where.iteration,
        },
    }


def from_record(record: Mapping[str, Any]) -> Row:
    """The row of a complete record, as `to_record` gives it."""
    where = record["provenance"]
    return Row(
        id=record["id"],
        input_ids=tuple(record["input_ids"]),
        mask=tuple(record["mask"]),
        logprobs=None if record["logprobs"] is None else tuple(record["logprobs"]),
        role=record["role"],
        task=record["task"],
        reward=record["reward"],
        authored=record["authored"],
        adapter=record["adapter"],
        temperature=record["temperature"],
        provenance=Provenance(
            tree=where["tree"],
            turns=tuple(where["turns"]),
            verdicts=tuple(where["verdicts"]),
            stage=where["stage"],
            iteration=where["iteration"],
        ),
        weight=record["weight"],
    )


def row_digest(row: Row) -> bytes:
    """SHA-256 of everything in the row, log-probabilities at the float32 that is stored."""
    digest = hashlib.sha256()
    for numbers, code in ((row.input_ids, "i"), (row.mask, "b"), (row.logprobs, "f")):
        digest.update(b"-" if numbers is None else _packed(numbers, code))
    where = row.provenance
    words = (row.id, row.role, row.task, row.reward, row.authored, row.adapter, row.temperature, row.weight)
    digest.update(repr((words, where.tree, where.turns, where.verdicts, where.stage, where.iteration)).encode())
    return digest.digest()


def _packed(numbers: Sequence[float], code: str) -> bytes:
    return struct.pack(f"<q{len(numbers)}{code}", len(numbers), *numbers)
