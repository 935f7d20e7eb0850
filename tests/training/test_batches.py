"""Batches by length: every row once an epoch, little padding, and the shares of several processes make up the batch of one."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.training.batches import BatchOrder, length_grouped_batches

lengths = st.lists(st.integers(1, 50), min_size=1, max_size=80)


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_every_row_comes_once_an_epoch(sizes: list[int], batch_size: int, seed: int, epoch: int):
    batches = length_grouped_batches(sizes, batch_size, seed=seed, epoch=epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
    assert sum(len(batch) < batch_size for batch in batches) <= 1
    assert batches == length_grouped_batches(sizes, batch_size, seed=seed, epoch=epoch)


@settings(max_examples=100, deadline=None)
@given(lengths, st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_the_pieces_of_a_step_make_up_the_batch_of_one_process(sizes: list[int], share: int, pieces: int, epoch: int):
    def steps(pieces: int) -> list[list[int]]:
        order = BatchOrder(sizes, batch_size, pieces=pieces, filler=len(sizes), seed=1)
        order.set_epoch(epoch)
        indices = list(order)
        assert len(indices) == len(order)
        return [sorted(indices[at : at + batch_size]) for at in range(0, len(indices), batch_size)]

    batch_size = share * pieces
    assert steps(pieces) == steps(1)
    assert sorted(i for step in steps(pieces) for i in step if i != len(sizes)) == list(range(len(sizes))), "filled up, and no row twice"


def test_epochs_and_seeds_differ():
    sizes = [random.Random(0).randint(1, 50) for _ in range(64)]
    orders = {tuple(map(tuple, length_grouped_batches(sizes, 4, seed=seed, epoch=epoch))) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_grouping_leaves_a_tenth_of_the_padding_of_random_batches():
    generator = random.Random(3)
    sizes = [generator.randint(50, 600) for _ in range(256)]

    def padding(batches: list[list[int]]) -> int:
        return sum(max(sizes[i] for i in batch) * len(batch) - sum(sizes[i] for i in batch) for batch in batches)

    at_random = [list(range(start, start + 8)) for start in range(0, 256, 8)]
    assert padding(length_grouped_batches(sizes, 8, seed=0, epoch=0)) < 0.1 * padding(at_random)
