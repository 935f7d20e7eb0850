"""Preference rows as a trainer takes them: two sequences a pair, exactly the ids of the row, and every reason to refuse found before the
model is loaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from agentloop.dataset.preference_row import PreferenceRow, Side
from agentloop.dataset.store import ParquetPreferences
from agentloop.errors import Mistake
from agentloop.training.job import TrainingJob
from agentloop.training.row_data import IGNORED, labels_of, nothing_to_train_on, select


@dataclass(frozen=True, slots=True)
class DoubleData:
    """Two sequences an example.

    Attributes:
        input_ids: Both sequences of each, from the first id of the context on.
        labels: The id where it is trained on, else `IGNORED`; same shapes.
        weights: One an example.
        skipped: Examples left out as too long.
        both_train: Whether the second sequence trains too; where not, it is only looked at.
    """

    input_ids: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    labels: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    weights: tuple[float, ...]
    skipped: int
    both_train: bool = True

    @property
    def lengths(self) -> list[int]:
        """Ids of each example, both sequences together."""
        return [len(first) + len(second) for first, second in self.input_ids]

    @property
    def trained_tokens(self) -> int:
        """Ids that the loss sees in one epoch."""
        trained = (labels for both in self.labels for labels in (both if self.both_train else both[:1]))
        return sum(label != IGNORED for labels in trained for label in labels)

    @property
    def total_tokens(self) -> int:
        """All ids of one epoch; a context that two sequences share counts twice."""
        return sum(self.lengths)

    @property
    def highest_id(self) -> int:
        """The highest of all ids."""
        return max(max(ids) for both in self.input_ids for ids in both)

    def columns(self, pad_id: int) -> dict[str, list[Any]]:
        """The examples as columns and, after them, the filler: twice two ids without a label, with a weight of 0."""
        return {
            "input_ids": [*([list(ids) for ids in both] for both in self.input_ids), [[pad_id, pad_id]] * 2],
            "labels": [*([list(labels) for labels in both] for both in self.labels), [[IGNORED, IGNORED]] * 2],
            "weight": [*self.weights, 0.0],
        }


def load_pairs(job: TrainingJob) -> DoubleData:
    """The job's pairs, chosen side first, ordered by their ids.

    Raises:
        Mistake: The rows are no pairs, a pair has nothing to train on or nothing before it, its weight is no positive number, or a side is
            longer than `max_length` where that is refused.
        RunFailed: There is nothing to train on.
    """
    pairs = [pair for path in job.rows for pair in ParquetPreferences(path) if job.role is None or pair.role == job.role]
    for pair in pairs:
        _check(pair)
    lengths = [len(pair.prompt_ids) + max(len(pair.chosen.ids), len(pair.rejected.ids)) for pair in pairs]
    chosen, skipped = select(pairs, lengths, job)
    if not chosen:
        raise nothing_to_train_on(job, skipped)
    return DoubleData(
        tuple((pair.prompt_ids + pair.chosen.ids, pair.prompt_ids + pair.rejected.ids) for pair in chosen),
        tuple((_labels(pair, pair.chosen), _labels(pair, pair.rejected)) for pair in chosen),
        tuple(pair.weight for pair in chosen),
        skipped,
    )


def _labels(pair: PreferenceRow, side: Side) -> tuple[int, ...]:
    return (IGNORED,) * len(pair.prompt_ids) + labels_of(side.ids, side.mask)


def _check(pair: PreferenceRow) -> None:
    for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if not any(side.mask):
            raise Mistake(f"the {name} side of pair {pair.id} has nothing to train on")
        if not pair.prompt_ids and side.mask[0]:
            raise Mistake(f"the {name} side of pair {pair.id} trains on its first id, which nothing precedes")
    if not (math.isfinite(pair.weight) and pair.weight >= 0):
        raise Mistake(f"pair {pair.id} has a weight that is no number from 0 on", found=pair.weight)
