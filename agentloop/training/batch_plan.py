"""Every batch of a training, decided before it begins: new rows for as many passes or updates as are asked for, then replayed ones.

A plan is one pass for the trainer that goes through it, so that what comes after the last pass over the new rows is a batch like any other,
with an optimiser step of its own, whatever distributes the processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from agentloop.training.batches import length_grouped_batches


def planned_batches(lengths: Sequence[int], batch_size: int, *, epochs: float, updates: int | None, seed: int) -> list[list[int]]:
    """Row indices of each update: whole passes, the last one cut where `epochs` has a part or `updates` ends it."""
    a_pass = math.ceil(len(lengths) / batch_size)
    count = updates if updates is not None else math.ceil(epochs * a_pass)
    batches: list[list[int]] = []
    epoch = 0
    while len(batches) < count:
        batches += length_grouped_batches(lengths, batch_size, seed=seed, epoch=epoch)
        epoch += 1
    return batches[:count]


class PlannedOrder:
    """A sampler: the rows of each planned batch, filled up to `batch_size` with the row `filler`, each batch `repeats` times.

    TRL's policy trainer reads a whole batch for each of the pieces that it cuts a batch into, and uses the first of them. Rows of a batch
    are dealt out round robin, so that each process and piece gets a like amount of work.
    """

    def __init__(self, batches: Sequence[Sequence[int]], batch_size: int, *, pieces: int, repeats: int, filler: int) -> None:
        self._batches = batches
        self._batch_size = batch_size
        self._pieces = pieces
        self._repeats = repeats
        self._filler = filler

    def __len__(self) -> int:
        return len(self._batches) * self._batch_size * self._repeats

    def __iter__(self) -> Iterator[int]:
        for batch in self._batches:
            full = [*batch, *[self._filler] * (self._batch_size - len(batch))]
            for _ in range(self._repeats):
                for piece in range(self._pieces):
                    yield from full[piece :: self._pieces]
