"""The plan of a policy training: every row as often as asked for, groups together, fillers only where a batch is short."""

from __future__ import annotations

from collections import Counter
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from agentloop.training.batch_plan import PlannedOrder, grouped_batches, planned_batches

some_groups = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40)


@given(some_groups, st.integers(1, 9), st.integers(0, 3))
def test_a_pass_has_every_row_once_and_groups_in_one_stretch(groups: list[str], size: int, epoch: int) -> None:
    batches = grouped_batches(groups, size, seed=1, epoch=epoch)
    laid = [index for batch in batches for index in batch]
    assert sorted(laid) == list(range(len(groups))) and all(len(batch) == size for batch in batches[:-1])
    stretches = [group for at, group in enumerate(groups[index] for index in laid) if at == 0 or group != groups[laid[at - 1]]]
    assert len(stretches) == len(set(groups))


@given(some_groups, st.integers(1, 9), st.integers(1, 3))
def test_epochs_are_whole_passes(groups: list[str], size: int, epochs: int) -> None:
    batches = planned_batches(groups, size, epochs=epochs, updates=None, seed=0)
    assert Counter(index for batch in batches for index in batch) == dict.fromkeys(range(len(groups)), epochs)


def test_updates_take_as_many_passes_as_they_need_in_other_orders() -> None:
    groups = [str(at) for at in range(10)]
    batches = planned_batches(groups, 5, epochs=1, updates=5, seed=0)
    assert len(batches) == 5 and batches[:2] != batches[2:4]
    assert planned_batches(groups, 4, epochs=0.5, updates=None, seed=0) == batches_of(groups, 4)[: ceil(0.5 * 3)]
    assert planned_batches([], 4, epochs=1, updates=3, seed=0) == []


def batches_of(groups: list[str], size: int) -> list[list[int]]:
    return grouped_batches(groups, size, seed=0, epoch=0)


def test_the_order_fills_short_batches_and_repeats_each_for_its_pieces() -> None:
    order = PlannedOrder([[0, 1, 2, 3], [4, 5]], 4, repeats=2, filler=9)
    assert list(order) == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 9, 9, 4, 5, 9, 9] and len(order) == 16
