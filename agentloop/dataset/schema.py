"""How a row lies in an Arrow table: the schema, its versions, and both directions of the conversion.

Version 2 adds to the provenance the turns that a row has as context only; rows of version 1 have none. Version 3 adds advantages, and
version 4 weights of single ids, which earlier rows do not have.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from agentloop.dataset.row import Provenance, Row
from agentloop.dataset.row_format import RowFormat

VERSION = 4
"""Version of the schema, kept in each file's metadata under `VERSION_KEY`; a reader refuses versions that it does not know."""

VERSION_KEY = b"agentloop.rows.version"

PROVENANCE_1 = pa.struct(
    [
        ("tree", pa.string()),
        ("turns", pa.list_(pa.string())),
        ("verdicts", pa.list_(pa.string())),
        ("stage", pa.string()),
        ("iteration", pa.int32()),
    ]
)
PROVENANCE = pa.struct([*PROVENANCE_1, ("context", pa.list_(pa.string()))])
ADVANTAGES = pa.field("advantages", pa.list_(pa.float32()))
TOKEN_WEIGHTS = pa.field("token_weights", pa.list_(pa.float32()))


def _schema(provenance: pa.StructType, *more: pa.Field) -> pa.Schema:
    return pa.schema(
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
            pa.field("provenance", provenance, nullable=False),
            *more,
        ]
    )


SCHEMA = _schema(PROVENANCE, ADVANTAGES, TOKEN_WEIGHTS).with_metadata({VERSION_KEY: str(VERSION).encode()})


def to_record(row: Row) -> dict[str, Any]:
    """The row as plain values, one a column of `SCHEMA`."""
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
        "provenance": provenance_record(row.provenance),
        "advantages": None if row.advantages is None else list(row.advantages),
        "token_weights": None if row.token_weights is None else list(row.token_weights),
    }


def from_record(record: Mapping[str, Any]) -> Row:
    """The row of a complete record, as `to_record` gives it, of this version or an earlier one."""
    advantages, token_weights = record.get("advantages"), record.get("token_weights")
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
        provenance=provenance_of(record["provenance"]),
        weight=record["weight"],
        advantages=None if advantages is None else tuple(advantages),
        token_weights=None if token_weights is None else tuple(token_weights),
    )


def provenance_record(where: Provenance) -> dict[str, Any]:
    """A provenance as plain values."""
    return {
        "tree": where.tree,
        "turns": list(where.turns),
        "verdicts": list(where.verdicts),
        "stage": where.stage,
        "iteration": where.iteration,
        "context": list(where.context),
    }


def provenance_of(record: Mapping[str, Any]) -> Provenance:
    """The provenance of such a record; version 1 has no context."""
    return Provenance(
        tree=record["tree"],
        turns=tuple(record["turns"]),
        verdicts=tuple(record["verdicts"]),
        stage=record["stage"],
        iteration=record["iteration"],
        context=tuple(record.get("context") or ()),
    )


def row_digest(row: Row) -> bytes:
    """SHA-256 of everything in the row, log-probabilities, advantages and weights of ids at the float32 that is stored.

    A row without advantages or without weights of ids has the digest that it had before there were any.
    """
    digest = hashlib.sha256()
    for numbers, code in ((row.input_ids, "i"), (row.mask, "b"), (row.logprobs, "f")):
        digest.update(b"-" if numbers is None else packed(numbers, code))
    if row.advantages is not None:
        digest.update(packed(row.advantages, "f"))
    if row.token_weights is not None:
        digest.update(b"token_weights" + packed(row.token_weights, "f"))
    words = (row.id, row.role, row.task, row.reward, row.authored, row.adapter, row.temperature, row.weight)
    digest.update(repr((words, provenance_words(row.provenance))).encode())
    return digest.digest()


def provenance_words(where: Provenance) -> tuple[object, ...]:
    """Everything of a provenance, for a digest."""
    return (where.tree, where.turns, where.verdicts, where.stage, where.iteration, where.context)


def packed(numbers: Sequence[float], code: str) -> bytes:
    """Numbers as bytes, their count first, so that neighbouring lists cannot be confused."""
    return struct.pack(f"<q{len(numbers)}{code}", len(numbers), *numbers)


ROWS: RowFormat[Row] = RowFormat(
    "rows",
    VERSION_KEY,
    {
        b"1": _schema(PROVENANCE_1),
        b"2": _schema(PROVENANCE),
        b"3": _schema(PROVENANCE, ADVANTAGES),
        str(VERSION).encode(): _schema(PROVENANCE, ADVANTAGES, TOKEN_WEIGHTS),
    },
    to_record,
    from_record,
    row_digest,
)
