"""Rows as a trainer takes them: ids, labels and weights, nothing added, nothing cut, and every reason to refuse found before the model is
loaded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args

from agentloop.dataset.row import Row
from agentloop.dataset.row_file import open_rows
from agentloop.errors import Mistake, RunFailed
from agentloop.training.job import TrainingJob
from agentloop.training.options import one_of, read_options

IGNORED = -100
"""Label of ids that are not trained on; the value that torch's cross entropy and TRL agree on."""

Aggregate = Literal["token", "row"]
"""What the sum of the weighted losses of a batch is divided by: its trained ids, or its rows (each row is then the mean of its own ids)."""


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Options of SFT.

    Attributes:
        aggregate: What the sum of weighted losses is divided by.
    """

    aggregate: Aggregate = "token"

    def __post_init__(self) -> None:
        one_of("aggregate", self.aggregate, get_args(Aggregate))


class TrainingData(Protocol):
    """What a training reads, whatever the kind of its rows."""

    @property
    def skipped(self) -> int:
        """Rows left out as too long."""

    @property
    def lengths(self) -> list[int]:
        """Ids of each row."""

    @property
    def trained_tokens(self) -> int:
        """Ids that the loss sees in one epoch."""

    @property
    def total_tokens(self) -> int:
        """All ids of one epoch."""

    @property
    def highest_id(self) -> int:
        """The highest of all ids."""

    def columns(self, pad_id: int) -> dict[str, list[Any]]:
        """The rows as columns of a dataset and, after them, the filler: a row that fills up batches and changes nothing."""


@dataclass(frozen=True, slots=True)
class RowData:
    """What a training reads.

    Attributes:
        input_ids: One tuple a row, exactly the row's.
        labels: The id where the mask is 1, else `IGNORED`; same shapes.
        skipped: Rows left out as too long.
        weights: Factor of each trained id's loss, 0 elsewhere; same shapes; None where all are 1. Below zero the id is unlearnt.
        aggregate: What the sum over a batch is divided by.
    """

    input_ids: tuple[tuple[int, ...], ...]
    labels: tuple[tuple[int, ...], ...]
    skipped: int
    weights: tuple[tuple[float, ...], ...] | None = None
    aggregate: Aggregate = "token"

    @property
    def lengths(self) -> list[int]:
        """Ids of each row."""
        return list(map(len, self.input_ids))

    @property
    def trained_tokens(self) -> int:
        """Ids that the loss sees in one epoch."""
        return sum(label != IGNORED for labels in self.labels for label in labels)

    @property
    def total_tokens(self) -> int:
        """All ids of one epoch."""
        return sum(self.lengths)

    @property
    def highest_id(self) -> int:
        """The highest of all ids."""
        return max(map(max, self.input_ids))

    @property
    def unlearns(self) -> bool:
        """Whether any id has a weight below zero, for which a reference is needed."""
        return self.weights is not None and any(weight < 0 for weights in self.weights for weight in weights)

    def columns(self, pad_id: int) -> dict[str, list[Any]]:
        """The rows as columns and, after them, the filler: two ids without a label."""
        columns: dict[str, list[Any]] = {
            "input_ids": [*map(list, self.input_ids), [pad_id, pad_id]],
            "labels": [*map(list, self.labels), [IGNORED, IGNORED]],
        }
        if self.weights is not None:
            columns["weights"] = [*map(list, self.weights), [0.0, 0.0]]
        return columns


class Sized(Protocol):
    """What rows of every kind have once it is known how many ids they take."""

    @property
    def id(self) -> str: ...

    @property
    def role(self) -> str: ...


S = TypeVar("S", bound=Sized)


def load_rows(job: TrainingJob) -> RowData:
    """The job's rows, ordered by their ids. `job.options` may say `aggregate`.

    Raises:
        Mistake: A mask on a first id, a weight that is no number, or rows longer than `max_length` where these are refused.
        RunFailed: There is nothing to train on.
    """
    aggregate = read_options(job, RowOptions).aggregate
    every = [row for path in job.rows for row in open_rows(path)]
    rows = [row for row in every if job.role is None or row.role == job.role]
    for row in rows:
        check_row(row)
    chosen, skipped = select(rows, [len(row.input_ids) for row in rows], job)
    if not any(any(row.mask) for row in chosen):
        raise nothing_to_train_on(job, skipped, [] if rows else [row.role for row in every])
    weights = tuple(_weights(row, aggregate) for row in chosen)
    plain = aggregate == "token" and all(found == tuple(map(float, row.mask)) for found, row in zip(weights, chosen, strict=True))
    return RowData(
        tuple(row.input_ids for row in chosen),
        tuple(labels_of(row.input_ids, row.mask) for row in chosen),
        skipped,
        None if plain else weights,
        aggregate,
    )


def labels_of(ids: Sequence[int], mask: Sequence[int]) -> tuple[int, ...]:
    """The id where the mask is 1, else `IGNORED`."""
    return tuple(i if m else IGNORED for i, m in zip(ids, mask, strict=True))


def select(rows: Sequence[S], lengths: Sequence[int], job: TrainingJob) -> tuple[list[S], int]:
    """Which rows to train on, ordered by their ids, and how many were left out as too long.

    Raises:
        Mistake: Rows are longer than `max_length`, and these are refused.
    """
    fitting = [row for row, length in zip(rows, lengths, strict=True) if job.max_length is None or length <= job.max_length]
    skipped = len(rows) - len(fitting)
    if skipped and job.too_long == "refuse":
        raise Mistake(
            f"{skipped} of {len(rows)} rows are longer than max_length, and rows are never cut",
            found=f"max_length {job.max_length}",
            expected=f"{max(lengths)} or more (the longest row), or too_long: skip",
        )
    fitting.sort(key=lambda row: row.id)
    if job.max_rows is not None and len(fitting) > job.max_rows:
        chosen = sorted(random.Random(job.seed).sample(range(len(fitting)), job.max_rows))
        fitting = [fitting[index] for index in chosen]
    return fitting, skipped


def nothing_to_train_on(job: TrainingJob, skipped: int, others: Iterable[str] = ()) -> RunFailed:
    """The error of a training without rows; `others` are the roles of the rows that are there, where none is of its role."""
    which = f" of role {job.role!r}" if job.role else ""
    cure = f"they are of {', '.join(sorted(set(others)))}" if others else "sample more tasks or lower min_reward"
    return RunFailed(f"no rows{which} to train on in {', '.join(job.rows)} ({skipped} skipped as too long); {cure}")


def check_row(row: Row) -> None:
    """Raises `Mistake` where a row trains on its first id or has a weight that is no number."""
    if row.mask and row.mask[0]:
        raise Mistake(f"row {row.id} trains on its first id, which nothing precedes", expected="mask[0] == 0")
    for weight in (row.weight, *(row.token_weights or ())):
        if not math.isfinite(weight):
            raise Mistake(f"row {row.id} has a weight that is no number", found=weight)


def _weights(row: Row, aggregate: Aggregate) -> tuple[float, ...]:
    """Factor of each id's loss: the row's weight times the id's, and for the mean of rows divided by the row's trained ids."""
    whole = row.weight / max(row.trained, 1) if aggregate == "row" else row.weight
    each = row.token_weights if row.token_weights is not None else (1.0,) * len(row.mask)
    return tuple(whole * weight if trained else 0.0 for weight, trained in zip(each, row.mask, strict=True))
