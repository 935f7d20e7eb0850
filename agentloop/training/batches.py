"""Which rows make a batch: rows of like length together, in an order that depends on the seed and the epoch only.

Sorted within pools of a few batches, not over everything, so that batches differ between epochs. Batches then come in random order, the one
that is short (if the rows do not divide evenly) among them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

BATCHES_A_POOL = 16
"""More pools mix better, fewer pad less; at 16 batches of 8 rows padding is a few percent of typical rows."""


def length_grouped_batches(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """All row indices, each once, in batches of `batch_size` (one may be shorter) whose rows are of like length, longest first within a
    batch.
    """
    generator = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    generator.shuffle(order)
    batches: list[list[int]] = []
    pool_size = batch_size * BATCHES_A_POOL
    for start in range(0, len(order), pool_size):
        pool = sorted(order[start : start + pool_size], key=lambda index: -lengths[index])
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    generator.shuffle(batches)
    return batches


class BatchOrder:
    """A sampler (an iterable of row indices with a length) that yields the batches of an epoch one after another, each filled to
    `batch_size`.

    A short batch is filled with `filler`, the index of a row without trained ids, so that every process gets as many rows as every
    other and none trains on a row twice. With several processes, consecutive runs of `batch_size / processes` indices belong to one
    step; indices of a batch are dealt out round robin so that each process gets a like amount of work.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, *, pieces: int, filler: int, seed: int) -> None:
        self._lengths = list(lengths)
        self._batch_size = batch_size
        self._pieces = pieces
        self._filler = filler
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop at the beginning of each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size) * self._batch_size

    def __iter__(self) -> Iterator[int]:
        for batch in length_grouped_batches(self._lengths, self._batch_size, seed=self._seed, epoch=self._epoch):
            full = batch + [self._filler] * (self._batch_size - len(batch))
            for piece in range(self._pieces):
                yield from full[piece :: self._pieces]
