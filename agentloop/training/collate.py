"""Rows of a batch as tensors: padded, or behind the prefix that they share.

Agents' rows begin alike: system prompt, tools, worked examples. Where that is worth it, the rows of a batch are laid behind one copy of the
prefix that all of them share and none of them trains on::

    prefix | rest of row 0 | rest of row 1 | ...

A token sees the prefix and what precedes it in its own row, at the positions that it has there, so losses and gradients are those of the
padded rows, for a fraction of the computation: the prefix goes forwards and backwards once a batch instead of once a row.

Where rows have weights, a batch has them at the same places as the labels, and under `count` what its sum of losses is divided by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from agentloop.training.row_data import IGNORED, Aggregate

PREFIX = -1
"""Owner of the tokens of the shared prefix; the others belong to the row of that index in the batch."""

PAIRS_A_POSITION = 3000.0
"""Pairs of attention that cost as much as the linear layers of one position: 24 h² operations there and 4 h here, so six times the model's
width h; this is a width of 500. Without it many short rows would become one sequence whose attention costs more than it spares."""


class Example(TypedDict):
    """A row as the dataset holds it."""

    input_ids: list[int]
    labels: list[int]
    weights: NotRequired[list[float]]


@dataclass(frozen=True, slots=True)
class RowCollator:
    """Makes a batch of examples.

    Attributes:
        pad_id: What short rows are filled up with; never seen by a real token and never trained on.
        share_prefix: Whether the model can be given tokens' owners (`masked_head`).
        packing: Whether rows are laid end to end instead (TRL's `padding_free`); needs a model that keeps them apart by their positions.
        aggregate: What `count` counts: trained ids or rows.
        least_saving: Share of the padded batch's cost that a shared prefix must save, below which rows are padded.
    """

    pad_id: int
    share_prefix: bool
    packing: bool = False
    aggregate: Aggregate = "token"
    least_saving: float = 0.2

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Tensors of shape (B, T), or of shape (1, N) with `owners` behind a shared prefix or with `position_ids` packed; `count` is a
        number.
        """
        batch = self._laid(examples)
        if "weights" in batch:
            tokens = sum(label != IGNORED for example in examples for label in example["labels"])
            batch["count"] = torch.tensor(tokens if self.aggregate == "token" else trained_rows(examples))
        return batch

    def _laid(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        if self.packing:
            return pack(examples, self.pad_id)
        longest = max(len(example["input_ids"]) for example in examples)
        prefix = common_prefix(examples) if self.share_prefix else 0
        laid = sum(len(example["input_ids"]) for example in examples if any_trained(example)) - prefix * (trained_rows(examples) - 1)
        if prefix and cost(laid) <= (1 - self.least_saving) * len(examples) * cost(longest):
            return behind_prefix(examples, prefix)
        return pad(examples, self.pad_id)


def cost(length: int) -> float:
    """What a sequence costs, in positions: each goes through the linear layers, and each pair through attention, masked or not."""
    return length + length**2 / PAIRS_A_POSITION


def any_trained(example: Example) -> bool:
    """Whether the row has an id to train on; fillers of short batches have none."""
    return any(label != IGNORED for label in example["labels"])


def trained_rows(examples: Sequence[Example]) -> int:
    """How many rows are no fillers."""
    return sum(map(any_trained, examples))


def common_prefix(examples: Sequence[Example]) -> int:
    """Length of the longest prefix that all rows (fillers left out) share and that ends before the id from which any first trained id
    is predicted.
    """
    rows = [example for example in examples if any_trained(example)]
    if len(rows) < 2:
        return 0
    first_trained = min(next(at for at, label in enumerate(row["labels"]) if label != IGNORED) for row in rows)
    limit = first_trained - 1
    first = rows[0]["input_ids"]
    for row in rows[1:]:
        ids = row["input_ids"]
        limit = next((at for at in range(limit) if ids[at] != first[at]), limit)
    return max(limit, 0)


def behind_prefix(examples: Sequence[Example], prefix: int) -> dict[str, torch.Tensor]:
    """One sequence: the first `prefix` ids once, then the rest of each row that trains; shapes (1, N)."""
    rows = [example for example in examples if any_trained(example)]
    ids = list(rows[0]["input_ids"][:prefix])
    labels, positions, owners = [IGNORED] * prefix, list(range(prefix)), [PREFIX] * prefix
    weights = [0.0] * prefix
    for owner, row in enumerate(rows):
        rest = row["input_ids"][prefix:]
        ids += rest
        labels += row["labels"][prefix:]
        weights += row.get("weights", [])[prefix:]
        positions += range(prefix, prefix + len(rest))
        owners += [owner] * len(rest)
    laid = {"input_ids": ids, "labels": labels, "position_ids": positions, "owners": owners}
    if "weights" in rows[0]:
        return {name: torch.tensor([values]) for name, values in (laid | {"weights": weights}).items()}
    return {name: torch.tensor([values]) for name, values in laid.items()}


def pad(examples: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Rows filled up on the right to the longest; shapes (B, T)."""
    longest = max(len(example["input_ids"]) for example in examples)

    def filled(rows: Sequence[Sequence[float]], filler: float) -> torch.Tensor:
        return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])

    batch = {
        "input_ids": filled([example["input_ids"] for example in examples], pad_id),
        "labels": filled([example["labels"] for example in examples], IGNORED),
        "attention_mask": filled([[1] * len(example["input_ids"]) for example in examples], 0),
    }
    if "weights" in examples[0]:
        batch["weights"] = filled([example["weights"] for example in examples], 0.0)
    return batch


def pack(examples: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Rows end to end as TRL lays them; shapes (1, N)."""
    batch: dict[str, torch.Tensor] = DataCollatorForLanguageModeling(pad_id, padding_free=True)(list(examples))
    if "weights" in examples[0]:
        batch["weights"] = torch.tensor([[weight for example in examples for weight in example["weights"]]])
    return batch


def visible(owners_1N: torch.Tensor) -> torch.Tensor:
    """Which tokens see which: boolean, shape (1, 1, N, N), [.., q, k] for whether q sees k."""
    owners_N = owners_1N[0]
    same_NN = (owners_N[:, None] == owners_N[None, :]) | (owners_N[None, :] == PREFIX)
    return same_NN.tril()[None, None]
