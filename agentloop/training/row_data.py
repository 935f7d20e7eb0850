"""Rows as a trainer takes them: ids and labels, nothing added, nothing cut, and every reason to refuse found before the model is loaded."""

from __future__ import annotations

import random
from dataclasses import dataclass

from agentloop.dataset.row import Row
from agentloop.dataset.row_file import open_rows
from agentloop.errors import Mistake, RunFailed
from agentloop.training.job import TrainingJob

IGNORED = -100
"""Label of ids that are not trained on; the value that torch's cross entropy and TRL agree on."""


@dataclass(frozen=True, slots=True)
class RowData:
    """What a training reads.

    Attributes:
        input_ids: One tuple a row, exactly the row's.
        labels: The id where the mask is 1, else `IGNORED`; same shapes.
        skipped: Rows left out as too long.
    """

    input_ids: tuple[tuple[int, ...], ...]
    labels: tuple[tuple[int, ...], ...]
    skipped: int

    @property
    def trained_tokens(self) -> int:
        """Ids that the loss sees in one epoch."""
        return sum(label != IGNORED for labels in self.labels for label in labels)

    @property
    def total_tokens(self) -> int:
        """All ids of one epoch."""
        return sum(map(len, self.input_ids))


def load_rows(job: TrainingJob) -> RowData:
    """The job's rows, ordered by their ids.

    Raises:
        Mistake: Weights other than 1 (not built yet), a mask on a first id, or rows longer than `max_length` where these are refused.
        RunFailed: There is nothing to train on.
    """
    every = [row for path in job.rows for row in open_rows(path)]
    rows = [row for row in every if job.role is None or row.role == job.role]
    for row in rows:
        _check(row)
    fitting = [row for row in rows if job.max_length is None or len(row.input_ids) <= job.max_length]
    skipped = len(rows) - len(fitting)
    if skipped and job.too_long == "refuse":
        longest = max(len(row.input_ids) for row in rows)
        raise Mistake(
            f"{skipped} of {len(rows)} rows are longer than max_length, and rows are never cut",
            found=f"max_length {job.max_length}",
            expected=f"{longest} or more (the longest row), or too_long: skip",
        )
    if not any(any(row.mask) for row in fitting):
        which = f" of role {job.role!r}" if job.role else ""
        others = sorted({row.role for row in every} - {job.role})
        cure = f"they are of {', '.join(others)}" if others and not rows else "sample more tasks or lower min_reward"
        raise RunFailed(f"no rows{which} to train on in {', '.join(job.rows)} ({skipped} skipped as too long); {cure}")
    fitting.sort(key=lambda row: row.id)
    if job.max_rows is not None and len(fitting) > job.max_rows:
        chosen = sorted(random.Random(job.seed).sample(range(len(fitting)), job.max_rows))
        fitting = [fitting[index] for index in chosen]
    return RowData(
        tuple(row.input_ids for row in fitting),
        tuple(tuple(i if m else IGNORED for i, m in zip(row.input_ids, row.mask, strict=True)) for row in fitting),
        skipped,
    )


def _check(row: Row) -> None:
    if row.weight != 1.0:
        raise Mistake(f"row {row.id} has a weight, which this training method does not know", found=row.weight, expected="1.0")
    if row.mask and row.mask[0]:
        raise Mistake(f"row {row.id} trains on its first id, which nothing precedes", expected="mask[0] == 0")
