"""Rows as tensors: padded rows and rows behind a shared prefix hold the same tokens, and a token sees its own row only."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from agentloop.training.collate import PREFIX, Example, RowCollator, behind_prefix, common_prefix, visible  # noqa: E402
from agentloop.training.row_data import IGNORED  # noqa: E402

FILLER: Example = {"input_ids": [0, 0], "labels": [IGNORED, IGNORED]}


def example(ids: list[int], trained_from: int) -> Example:
    return {"input_ids": ids, "labels": [IGNORED] * trained_from + ids[trained_from:]}


@st.composite
def alike(draw: st.DrawFn) -> list[Example]:
    """Rows with a beginning in common, trained on from some place behind their first id."""
    prefix = draw(st.lists(st.integers(1, 3), max_size=12))
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        ids = [*prefix, *draw(st.lists(st.integers(1, 3), min_size=2, max_size=8))]
        rows.append(example(ids, draw(st.integers(1, len(ids) - 1))))
    return rows


@settings(max_examples=150, deadline=None)
@given(alike(), st.integers(0, 2))
def test_each_row_can_be_read_off_the_shared_layout(rows: list[Example], fillers: int):
    prefix = common_prefix([*rows, *[FILLER] * fillers])
    if len(rows) > 1:
        assert all(row["input_ids"][:prefix] == rows[0]["input_ids"][:prefix] for row in rows)
    batch = {name: tensor[0] for name, tensor in behind_prefix([*rows, *[FILLER] * fillers], prefix).items()}
    seen = visible(batch["owners"][None])[0, 0]
    assert len(batch["input_ids"]) == prefix + sum(len(row["input_ids"]) - prefix for row in rows)
    for owner, row in enumerate(rows):
        mine = (batch["owners"] == owner) | (batch["owners"] == PREFIX)
        assert batch["input_ids"][mine].tolist() == row["input_ids"]
        assert batch["position_ids"][mine].tolist() == list(range(len(row["input_ids"])))
        assert batch["labels"][mine].tolist() == [IGNORED] * prefix + row["labels"][prefix:]
        own = torch.nonzero(mine).flatten()
        for place, query in enumerate(own.tolist()):
            if batch["owners"][query] == owner:
                assert torch.nonzero(seen[query]).flatten().tolist() == own[: place + 1].tolist(), (
                    "its own row up to itself, and nothing else"
                )
    for at, label in enumerate(batch["labels"].tolist()):
        if label != IGNORED:
            assert batch["owners"][at - 1] == batch["owners"][at], "an id is predicted from the one before it in its own row"


def test_the_prefix_ends_before_the_first_trained_id_is_predicted():
    rows = [example([1, 2, 3, 4, 5], 3), example([1, 2, 3, 4, 6], 4)]
    assert common_prefix(rows) == 2, "id 3 is trained on and predicted from id 2, which each row keeps for itself"
    assert common_prefix([example([1, 2], 1), example([1, 3], 1)]) == 0
    assert common_prefix([rows[0], FILLER]) == 0, "one row shares nothing"


def test_rows_are_padded_where_a_prefix_would_not_pay():
    alike = [example([1] * 20 + [n, n], 21) for n in range(2, 6)]
    unlike = [example([n] * 20 + [n, n], 21) for n in range(2, 6)]
    collate = RowCollator(0, share_prefix=True)
    assert collate(alike)["input_ids"].shape == (1, 20 + 4 * 2) and "attention_mask" not in collate(alike)
    assert collate(unlike)["input_ids"].shape == (4, 22) and "owners" not in collate(unlike)
    assert RowCollator(0, share_prefix=False)(alike)["input_ids"].shape == (4, 22)


def test_many_short_rows_are_padded_since_attention_over_all_of_them_costs_more_than_their_padding():
    def batch(rows: int) -> dict[str, torch.Tensor]:
        return RowCollator(0, share_prefix=True)([example([1] * 20 + [2 + n % 7] * 20, 30) for n in range(rows)])

    assert batch(8)["input_ids"].shape == (1, 20 + 8 * 20)
    assert batch(400)["input_ids"].shape == (400, 40), "8,020 positions would be 64 million pairs"


def test_padding_is_marked_and_never_a_label():
    batch = RowCollator(7, share_prefix=True)([example([1, 2, 3], 1), example([4, 5, 6, 8], 2), FILLER])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 7], [4, 5, 6, 8], [0, 0, 7, 7]]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100], [-100, -100, 6, 8], [-100] * 4]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
