"""A user's own file of rows: what is read of it, and one message for each way in which it can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agentloop.dataset.row_file import open_rows
from agentloop.dataset.store import write_rows
from agentloop.errors import Mistake

GOOD = {"input_ids": [5, 6, 7], "mask": [0, 1, 1]}


def jsonl(path: Path, *records: object) -> Path:
    path.write_text("\n".join(record if isinstance(record, str) else json.dumps(record) for record in records) + "\n")
    return path


def test_ids_and_mask_are_enough(tmp_path: Path):
    source = open_rows(
        jsonl(tmp_path / "own.jsonl", GOOD, "", {**GOOD, "task": "t", "reward": 1, "logprobs": [0.0, -1.0, -2.0], "role": "critic"})
    )
    first, second = source
    assert len(source) == 2
    assert (first.input_ids, first.mask, first.authored, first.role, first.weight) == ((5, 6, 7), (0, 1, 1), True, "actor", 1.0)
    assert (second.logprobs, second.authored, second.role, second.reward) == ((0.0, -1.0, -2.0), False, "critic", 1.0)
    assert (first.provenance.tree, first.provenance.turns, second.provenance.turns) == ("file:own.jsonl", ("1",), ("3",))
    assert first.id != second.id


def test_parquet_of_ones_own_reads_like_jsonl(tmp_path: Path):
    pq.write_table(pa.Table.from_pylist([{**GOOD, "task": None}, {**GOOD, "task": "t"}]), tmp_path / "own.parquet")
    assert [(row.input_ids, row.task) for row in open_rows(tmp_path / "own.parquet")] == [((5, 6, 7), ""), ((5, 6, 7), "t")]


def test_artifacts_are_opened_as_such(tmp_path: Path):
    rows = list(open_rows(jsonl(tmp_path / "own.jsonl", GOOD)))
    write_rows(tmp_path / "rows" / "a.parquet", rows)
    assert list(open_rows(tmp_path / "rows")) == list(open_rows(tmp_path / "rows" / "a.parquet")) == rows


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", ":2: not JSON"),
        ([1], ":2: a row is an object; found 'list'"),
        ({"input_ids": [1]}, ":2: no field 'mask'"),
        ({**GOOD, "maks": []}, ":2: unknown field 'maks'; expected some of input_ids"),
        ({**GOOD, "maks": []}, "did you mean 'mask'?"),
        ({**GOOD, "input_ids": "567"}, ":2: 'input_ids' must be a list; found '567'"),
        ({**GOOD, "input_ids": [5, -1, 7]}, ":2: 'input_ids' must hold token ids; found -1"),
        ({**GOOD, "input_ids": [5, 6.5, 7]}, ":2: 'input_ids' must hold token ids; found 6.5"),
        ({**GOOD, "input_ids": [5, 2**31, 7]}, ":2: 'input_ids' must hold token ids; found 2147483648"),
        ({**GOOD, "input_ids": [0, "x", 7]}, ":2: 'input_ids' must hold token ids; found 'x'"),
        ({**GOOD, "mask": [0, 1, 2]}, ":2: 'mask' must hold 0 and 1; found 2"),
        ({**GOOD, "mask": [0, 1]}, ":2: 'mask' must be as long as 'input_ids'; found 2; expected 3"),
        ({**GOOD, "logprobs": [0.0]}, ":2: 'logprobs' must be as long as 'input_ids'; found 1; expected 3"),
        ({**GOOD, "logprobs": [0.0, "a", 1.0]}, ":2: 'logprobs' must hold numbers; found 'a'"),
        ({**GOOD, "advantages": [0.0, 1.0]}, ":2: 'advantages' must be as long as 'input_ids'; found 2; expected 3"),
        ({**GOOD, "token_weights": [0.0, 1.0]}, ":2: 'token_weights' must be as long as 'input_ids'; found 2; expected 3"),
        ({**GOOD, "advantages": [0.0, True, 1.0]}, ":2: 'advantages' must hold numbers; found True"),
        ({**GOOD, "mask": [0, 0, 0]}, ":2: nothing to train on"),
        ({**GOOD, "mask": [1, 1, 1]}, ":2: the first id cannot be trained on"),
        ({**GOOD, "reward": "high"}, ":2: 'reward' has the wrong type; found 'high'"),
    ],
)
def test_the_first_wrong_row_is_named(tmp_path: Path, record: object, message: str):
    with pytest.raises(Mistake) as refused:
        open_rows(jsonl(tmp_path / "own.jsonl", GOOD, record))
    assert message in str(refused.value) and "own.jsonl" in str(refused.value)


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("a,b")
    for path, message in (
        (tmp_path / "rows.csv", "found '.csv'"),
        (tmp_path / "none.jsonl", "no such file"),
        (jsonl(tmp_path / "e.jsonl", ""), "no rows"),
    ):
        with pytest.raises(Mistake, match=message):
            open_rows(path)
