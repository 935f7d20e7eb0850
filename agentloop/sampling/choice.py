"""Which tasks of a split a stage plays: other ones every iteration for learning, always the same ones for measuring."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from agentloop.environment.base import Task
from agentloop.sampling.seed import derive


def fresh_tasks(tasks: Sequence[Task], count: int | None, *, seed: int, iteration: int) -> list[Task]:
    """`count` tasks to learn from in this iteration; all of them where `count` is None or not below their number.

    The split is dealt like a pack of cards: shuffled by the seed, `count` cards an iteration, shuffled anew when it runs out. So a task
    comes back only when the pack has run out, and never twice in one iteration.
    """
    if count is None or count >= len(tasks):
        return list(tasks)
    chosen: dict[str, Task] = {}
    position = iteration * count
    while len(chosen) < count:
        pack, first = divmod(position, len(tasks))
        for task in _pack(tasks, seed, pack)[first : first + count - len(chosen)]:
            chosen.setdefault(task.id, task)
            position += 1
    return list(chosen.values())


def frozen_tasks(tasks: Sequence[Task], count: int | None) -> list[Task]:
    """`count` tasks to measure on, the same for every model, seed and iteration; all of them where `count` is None or not below their
    number.

    Chosen by a hash of their ids, so that a split sorted by difficulty is not cut at its easy end, and a smaller count is part of a larger
    one. Returned in the order of the split.
    """
    if count is None or count >= len(tasks):
        return list(tasks)
    ranked = sorted(range(len(tasks)), key=lambda index: hashlib.blake2b(tasks[index].id.encode()).digest())
    return [tasks[index] for index in sorted(ranked[:count])]


def _pack(tasks: Sequence[Task], seed: int, pack: int) -> list[Task]:
    return sorted(tasks, key=lambda task: derive(seed, "pack", pack, task.id))
