"""Which tasks are played."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.environment.base import Task
from agentloop.sampling.choice import fresh_tasks, frozen_tasks


def split(size: int) -> list[Task]:
    return [Task(f"task-{number}") for number in range(size)]


@settings(deadline=None)
@given(size=st.integers(1, 60), count=st.integers(1, 70), seed=st.integers(0, 99), iteration=st.integers(0, 9))
def test_fresh_tasks_are_as_many_as_asked_for_each_once(size: int, count: int, seed: int, iteration: int) -> None:
    found = fresh_tasks(split(size), count, seed=seed, iteration=iteration)
    assert len({task.id for task in found}) == len(found) == min(size, count)
    assert found == fresh_tasks(split(size), count, seed=seed, iteration=iteration)


@settings(deadline=None)
@given(size=st.integers(2, 60), count=st.integers(1, 20), seed=st.integers(0, 99))
def test_a_task_comes_back_only_when_the_pack_has_run_out(size: int, count: int, seed: int) -> None:
    whole_packs = size // count
    played = Counter(
        task.id for iteration in range(whole_packs) for task in fresh_tasks(split(size), count, seed=seed, iteration=iteration)
    )
    assert count > size or max(played.values()) == 1


def test_another_seed_deals_another_pack() -> None:
    first = [task.id for task in fresh_tasks(split(50), 10, seed=0, iteration=0)]
    assert first != [task.id for task in fresh_tasks(split(50), 10, seed=1, iteration=0)]
    assert first != [task.id for task in split(10)]


@settings(deadline=None)
@given(size=st.integers(1, 60), count=st.integers(1, 70))
def test_frozen_tasks_keep_their_order_and_a_smaller_count_is_part_of_a_larger(size: int, count: int) -> None:
    tasks = split(size)
    found = frozen_tasks(tasks, count)
    assert len(found) == min(size, count)
    assert found == [task for task in tasks if task in found]
    larger = {task.id for task in frozen_tasks(tasks, count + 1)}
    assert {task.id for task in found} <= larger


def test_frozen_tasks_come_from_the_whole_split() -> None:
    numbers = [int(task.id.split("-")[1]) for task in frozen_tasks(split(1000), 100)]
    assert min(numbers) < 100 and max(numbers) > 900 and 30 < sum(number < 500 for number in numbers) < 70
