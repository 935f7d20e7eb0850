"""The benchmark of training lays out the same rows on every side, and counts what it says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.training.row_data import IGNORED

pytest.importorskip("trl")


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=6), min_size=1, max_size=6))
def test_a_prefix_tree_has_every_prefix_once(rows: list[list[int]]) -> None:
    from benchmarks.training import prefix_tree

    prefixes = {tuple(row[:length]) for row in rows for length in range(1, len(row) + 1)}
    assert prefix_tree([{"input_ids": row, "labels": row} for row in rows]) == len(prefixes)


def test_trl_is_given_the_same_rows() -> None:
    """Ids in their order, the environment's words seen and not trained on, and each number at its id."""
    from benchmarks.training import as_sampled

    rows: list[dict[str, Any]] = [
        {
            "input_ids": [5, 6, 7, 8, 9],
            "labels": [IGNORED, 6, IGNORED, 8, IGNORED],
            "advantages": [1.0, 2.0],
            "old_logprobs": [-1.0, -2.0],
        },
        {"input_ids": [3, 4, 5], "labels": [IGNORED, IGNORED, 5], "advantages": [3.0], "old_logprobs": [-3.0]},
    ]
    batch = as_sampled(rows, pad_id=0)
    for at, row in enumerate(rows):
        ids = [*batch["prompt_ids"][at][batch["prompt_mask"][at] > 0], *batch["completion_ids"][at][batch["completion_mask"][at] > 0]]
        assert list(map(int, ids)) == row["input_ids"]
        trained = batch["tool_mask"][at] > 0
        assert batch["completion_ids"][at][trained].tolist() == [label for label in row["labels"] if label != IGNORED]
        assert batch["advantages"][at][trained].tolist() == row["advantages"]
        assert batch["old_per_token_logps"][at][trained].tolist() == row["old_logprobs"]
    assert int(batch["num_items_in_batch"]) == 3
