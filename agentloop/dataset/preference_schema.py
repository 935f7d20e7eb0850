"""How a preference row lies in an Arrow table: the schema, its version, and both directions of the conversion."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from agentloop.dataset.preference_row import PreferenceRow, Side
from agentloop.dataset.row_format import RowFormat
from agentloop.dataset.schema import PROVENANCE, packed, provenance_of, provenance_record, provenance_words

VERSION = 1
VERSION_KEY = b"agentloop.preferences.version"

_SIDE = pa.struct([("ids", pa.list_(pa.int32())), ("mask", pa.list_(pa.int8())), ("value", pa.float64()), ("provenance", PROVENANCE)])

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("prompt_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("chosen", _SIDE, nullable=False),
        pa.field("rejected", _SIDE, nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("authored", pa.bool_(), nullable=False),
        pa.field("adapter", pa.string(), nullable=False),
        pa.field("temperature", pa.float64(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
    ]
)


def to_record(row: PreferenceRow) -> dict[str, Any]:
    """The row as plain values, one a column of `SCHEMA`."""
    return {
        "id": row.id,
        "prompt_ids": list(row.prompt_ids),
        "chosen": _side_record(row.chosen),
        "rejected": _side_record(row.rejected),
        "role": row.role,
        "task": row.task,
        "authored": row.authored,
        "adapter": row.adapter,
        "temperature": row.temperature,
        "weight": row.weight,
    }


def _side_record(side: Side) -> dict[str, Any]:
    return {"ids": list(side.ids), "mask": list(side.mask), "value": side.value, "provenance": provenance_record(side.provenance)}


def from_record(record: Mapping[str, Any]) -> PreferenceRow:
    """The row of a complete record, as `to_record` gives it."""
    return PreferenceRow(
        id=record["id"],
        prompt_ids=tuple(record["prompt_ids"]),
        chosen=_side(record["chosen"]),
        rejected=_side(record["rejected"]),
        role=record["role"],
        task=record["task"],
        authored=record["authored"],
        adapter=record["adapter"],
        temperature=record["temperature"],
        weight=record["weight"],
    )


def _side(record: Mapping[str, Any]) -> Side:
    return Side(tuple(record["ids"]), tuple(record["mask"]), record["value"], provenance_of(record["provenance"]))


def row_digest(row: PreferenceRow) -> bytes:
    """SHA-256 of everything in the row."""
    digest = hashlib.sha256(packed(row.prompt_ids, "i"))
    for side in (row.chosen, row.rejected):
        digest.update(packed(side.ids, "i"))
        digest.update(packed(side.mask, "b"))
        digest.update(repr((side.value, provenance_words(side.provenance))).encode())
    digest.update(repr((row.id, row.role, row.task, row.authored, row.adapter, row.temperature, row.weight)).encode())
    return digest.digest()


PREFERENCES: RowFormat[PreferenceRow] = RowFormat(
    "preference rows", VERSION_KEY, {str(VERSION).encode(): SCHEMA}, to_record, from_record, row_digest
)
