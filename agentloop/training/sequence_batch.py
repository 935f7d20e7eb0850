"""Batches of two sequences an example: the sides of a pair, or a row and what it is compared with.

All sequences of a batch are laid out by `RowCollator`, so they share a prefix where that pays; `sequence` says which position belongs to
which, first sequences before second ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch

from agentloop.training.collate import Example, RowCollator, any_trained
from agentloop.training.row_data import IGNORED

TAKES = ("sequence", "lengths", "weights")
"""What a batch holds for the objective: the owner of each position, trained ids of each of the 2 N sequences, the weight of each of the N
examples."""


class Double(TypedDict):
    """An example as the dataset holds it: two sequences and a weight. The filler's labels are all ignored."""

    input_ids: list[list[int]]
    labels: list[list[int]]
    weight: float


@dataclass(frozen=True, slots=True)
class DoubleCollator:
    """Makes a batch of examples; see `RowCollator` for the attributes."""

    pad_id: int
    share_prefix: bool

    def __call__(self, doubles: Sequence[Double]) -> dict[str, torch.Tensor]:
        """Tensors of `RowCollator`, those of `TAKES`, and `count`, the number of examples that are no fillers."""
        real = [double for double in doubles if any(label != IGNORED for label in double["labels"][0])]
        laid = real or doubles[:1]  # a process whose share is all filler still goes through the model with the others
        examples: list[Example] = [
            {"input_ids": double["input_ids"][side], "labels": double["labels"][side]} for side in (0, 1) for double in laid
        ]
        batch = RowCollator(self.pad_id, self.share_prefix)(examples)
        assert not real or all(map(any_trained, examples)), "a shared prefix leaves out what has no label"
        if "owners" in batch:
            batch["sequence"] = batch["owners"].clamp(min=0)  # nothing of the prefix has a label
        else:
            batch["sequence"] = torch.arange(len(examples))[:, None].expand_as(batch["input_ids"])
        batch["lengths"] = torch.tensor([sum(label != IGNORED for label in example["labels"]) for example in examples])
        batch["weights"] = torch.tensor([double["weight"] if real else 0.0 for double in laid])
        batch["count"] = torch.tensor(len(real))
        return batch


def sums(logprobs: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each first and of each second sequence, shapes (N,), from those of ids, shape (B, T - 1)."""
    totals = logprobs.new_zeros(len(batch["lengths"]))
    totals = totals.index_add(0, batch["sequence"][:, 1:].reshape(-1), logprobs.reshape(-1))
    first, second = totals.chunk(2)
    return first, second
