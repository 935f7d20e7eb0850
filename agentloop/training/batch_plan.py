"""Every batch of a training, decided before it begins: new rows for as many passes or updates as are asked for, then replayed ones.

Rows of a group stay together. Their advantages add up to about nothing, so that a batch pushes nothing up or down as a whole, as batches of
like lengths would: how long an episode is says much of how it went. And a group shares its beginning, which is then computed once.

A plan is one pass for the trainer that goes through it, so that what comes after the last pass over the new rows is a batch like any other,
with an optimiser step of its own, whatever distributes the processes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence


def grouped_batches(groups: Sequence[str], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """All row indices, each once, in batches of `batch_size` (the last may be shorter): groups in an order that depends on seed and epoch
    only, laid end to end and cut.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    order = sorted(members)
    random.Random(f"{seed}/{epoch}").shuffle(order)
    laid = [index for group in order for index in members[group]]
    return [laid[at : at + batch_size] for at in range(0, len(laid), batch_size)]


def planned_batches(groups: Sequence[str], batch_size: int, *, epochs: float, updates: int | None, seed: int) -> list[list[int]]:
    """Row indices of each update: whole passes, the last one cut where `epochs` has a part or `updates` ends it.

    Args:
        groups: The group of each row.
        batch_size: Rows an update.
        epochs: Passes over the rows.
        updates: Updates in place of `epochs`.
        seed: Of the order.
    """
    if not groups:
        return []
    count = updates if updates is not None else math.ceil(epochs * math.ceil(len(groups) / batch_size))
    batches: list[list[int]] = []
    epoch = 0
    while len(batches) < count:
        batches += grouped_batches(groups, batch_size, seed=seed, epoch=epoch)
        epoch += 1
    return batches[:count]


class PlannedOrder:
    """A sampler: the rows of each planned batch, filled up to `batch_size` with the row `filler`, each batch `repeats` times.

    TRL's policy trainer reads a whole batch for each of the pieces that it cuts a batch into, and uses the first of them. Each process and
    piece gets consecutive rows, which share most.
    """

    def __init__(self, batches: Sequence[Sequence[int]], batch_size: int, *, repeats: int, filler: int) -> None:
        self._batches = batches
        self._batch_size = batch_size
        self._repeats = repeats
        self._filler = filler

    def __len__(self) -> int:
        return len(self._batches) * self._batch_size * self._repeats

    def __iter__(self) -> Iterator[int]:
        for batch in self._batches:
            full = [*batch, *[self._filler] * (self._batch_size - len(batch))]
            for _ in range(self._repeats):
                yield from full
