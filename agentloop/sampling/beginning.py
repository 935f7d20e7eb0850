"""The episodes of a stage before they are played: the task, the tree that they go into and their number there, and where they start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentloop.environment.base import Task
from agentloop.sampling.origin import Origin
from agentloop.sampling.start import Start


@dataclass(frozen=True, slots=True)
class Beginning:
    """One episode that is to be played.

    Attributes:
        tree: Id of the tree that it goes into.
        seed: Seed of that tree.
        task: Its task.
        sample: Its number in the tree.
        start: The node that it starts from; None is the beginning.
    """

    tree: str
    seed: int
    task: Task
    sample: int
    start: Start | None = None


def from_tasks(tasks: Sequence[Task], samples: int, origin: Origin) -> Iterator[Beginning]:
    """`samples` episodes of every task, those of a task side by side since they share a prefix."""
    for task in tasks:
        for sample in range(samples):
            yield Beginning(origin.tree_id(task.id), origin.tree_seed(task.id), task, sample)


def from_starts(starts: Sequence[Start], samples: int, origin: Origin) -> Iterator[Beginning]:
    """`samples` episodes from every node, in one new tree for each earlier tree; nodes of a tree follow each other in `starts`."""
    names = tree_ids(starts, origin)
    counted: Counter[str] = Counter()
    for start in starts:
        task = Task(start.tree.task, dict(start.tree.task_data))
        name = names[start.tree.id]
        for _ in range(samples):
            yield Beginning(name, origin.tree_seed(name), task, counted[name], start)
            counted[name] += 1


def tree_ids(starts: Sequence[Start], origin: Origin) -> dict[str, str]:
    """Ids of the new trees by those of the earlier ones: "ITERATION/STAGE/TASK", with "~2" and so on behind it for more trees of a task."""
    counted: Counter[str] = Counter()
    names: dict[str, str] = {}
    for start in starts:
        if start.tree.id not in names:
            counted[start.tree.task] += 1
            more = counted[start.tree.task]
            names[start.tree.id] = origin.tree_id(start.tree.task) + (f"~{more}" if more > 1 else "")
    return names
