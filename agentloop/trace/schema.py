"""The Parquet schema of trees: one row a tree (or a fragment of one), turns, verdicts and failures as nested lists.

Numbers are stored as they are (ids int32, log-probabilities float64), so that a tree that is read equals the tree that was written, bit for
bit. Free-form JSON (`task_data`, `info`) is text. A change that a reader of the last version would misread raises `VERSION`:

1. the first;
2. turns say whether they were taken over from another tree (`given`); those of version 1 were not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from agentloop.trace.tree import Draw, Failure, Spent, Tree, Turn, Verdict

VERSION = 2
READABLE = frozenset({b"1", b"2"})
"""Versions, as they stand in a file's metadata, that `trees` reads."""
VERSION_KEY = b"agentloop.trace.version"

_IDS = pa.list_(pa.int32())

TURN = pa.struct(
    [
        pa.field("id", pa.string(), nullable=False),
        ("parent", pa.string()),
        ("extends", pa.string()),
        ("fresh", pa.string()),
        ("prompt_ids", _IDS),
        ("completion_ids", _IDS),
        ("logprobs", pa.list_(pa.float64())),
        ("text", pa.string()),
        ("action", pa.string()),
        ("observation", pa.string()),
        ("reward", pa.float64()),
        ("done", pa.bool_()),
        ("success", pa.bool_()),
        ("truncated", pa.string()),
        ("finish", pa.string()),
        ("seat", pa.string()),
        ("role", pa.string()),
        ("given", pa.bool_()),
        ("info", pa.string()),
        ("generation_seconds", pa.float64()),
        ("environment_seconds", pa.float64()),
        ("cached_tokens", pa.int32()),
        ("adapter", pa.string()),
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("top_k", pa.int32()),
        ("draw_kind", pa.string()),
        ("draw_seed", pa.int64()),
        ("copies", pa.int32()),
        ("spent", pa.struct([(name, pa.int64()) for name in ("requests", "prompt", "cached", "generated")])),
    ]
)

VERDICT = pa.struct(
    [
        pa.field("critic", pa.string(), nullable=False),
        ("turn", pa.string()),
        ("value", pa.float64()),
        ("label", pa.string()),
        ("turns", pa.list_(pa.string())),
        ("stage", pa.string()),
    ]
)

FAILURE = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),
        ("message", pa.string()),
        ("sample", pa.int32()),
        ("turn", pa.string()),
        ("traceback", pa.string()),
    ]
)

TREES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("task", pa.string()),
        ("environment", pa.string()),
        ("split", pa.string()),
        ("system_prompt", pa.string()),
        ("first_observation", pa.string()),
        ("task_data", pa.string()),
        ("seed", pa.int64()),
        ("samples", pa.list_(pa.int32())),
        ("turns", pa.list_(TURN)),
        ("verdicts", pa.list_(VERDICT)),
        ("failures", pa.list_(FAILURE)),
    ],
    metadata={VERSION_KEY: str(VERSION).encode()},
)


def batch(trees: Iterable[Tree]) -> pa.RecordBatch:
    """Trees as rows.

    Raises:
        ValueError: A value does not fit, for example a seed beyond 64 bits; the message names the tree.
    """
    rows = [_row(tree) for tree in trees]
    try:
        return pa.RecordBatch.from_pylist(rows, schema=TREES)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        names = ", ".join(repr(row["id"]) for row in rows)
        raise ValueError(f"tree {names} cannot be stored: {error}") from error


def trees(rows: pa.RecordBatch | pa.Table) -> list[Tree]:
    """Rows as trees."""
    return [_tree(row) for row in rows.to_pylist()]


def _row(tree: Tree) -> dict[str, Any]:
    return {
        "id": tree.id,
        "task": tree.task,
        "environment": tree.environment,
        "split": tree.split,
        "system_prompt": tree.system_prompt,
        "first_observation": tree.first_observation,
        "task_data": _json(tree.task_data),
        "seed": tree.seed,
        "samples": tree.samples,
        "turns": [_turn_row(turn) for turn in tree.turns],
        "verdicts": [
            {"critic": v.critic, "turn": v.turn, "value": v.value, "label": v.label, "turns": v.turns, "stage": v.stage}
            for v in tree.verdicts
        ],
        "failures": [
            {"kind": f.kind, "message": f.message, "sample": f.sample, "turn": f.turn, "traceback": f.traceback} for f in tree.failures
        ],
    }


def _tree(row: Mapping[str, Any]) -> Tree:
    return Tree(
        id=row["id"],
        task=row["task"],
        environment=row["environment"],
        split=row["split"],
        system_prompt=row["system_prompt"],
        first_observation=row["first_observation"],
        task_data=json.loads(row["task_data"]),
        seed=row["seed"],
        samples=tuple(row["samples"]),
        turns=tuple(_turn(turn) for turn in row["turns"]),
        verdicts=tuple(Verdict(**{**verdict, "turns": tuple(verdict["turns"])}) for verdict in row["verdicts"]),
        failures=tuple(Failure(**failure) for failure in row["failures"]),
    )


_SAME = (
    "id",
    "parent",
    "extends",
    "fresh",
    "prompt_ids",
    "completion_ids",
    "logprobs",
    "text",
    "action",
    "observation",
    "reward",
    "done",
    "success",
    "truncated",
    "finish",
    "seat",
    "role",
    "cached_tokens",
)


def _turn_row(turn: Turn) -> dict[str, Any]:
    return {name: getattr(turn, name) for name in _SAME} | {
        "given": turn.given,
        "info": _json(turn.info),
        "generation_seconds": turn.seconds[0],
        "environment_seconds": turn.seconds[1],
        "adapter": turn.draw.adapter,
        "temperature": turn.draw.temperature,
        "top_p": turn.draw.top_p,
        "top_k": turn.draw.top_k,
        "draw_kind": turn.draw.kind,
        "draw_seed": turn.draw.seed,
        "copies": turn.draw.copies,
        "spent": asdict(turn.spent),
    }


def _turn(row: Mapping[str, Any]) -> Turn:
    values = {name: row[name] for name in _SAME}
    values["prompt_ids"] = tuple(row["prompt_ids"])
    values["completion_ids"] = tuple(row["completion_ids"])
    values["logprobs"] = None if row["logprobs"] is None else tuple(row["logprobs"])
    values["given"] = bool(row.get("given"))
    draw = Draw(
        adapter=row["adapter"],
        temperature=row["temperature"],
        top_p=row["top_p"],
        top_k=row["top_k"],
        kind=row["draw_kind"],
        seed=row["draw_seed"],
        copies=row["copies"],
    )
    seconds = (row["generation_seconds"], row["environment_seconds"])
    spent = Spent(**(row.get("spent") or {}))  # what was written before there were searches has none
    return Turn(**values, draw=draw, info=json.loads(row["info"]), seconds=seconds, spent=spent)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
