"""Trees of demonstrations: successful episodes to plant errors in, where no policy succeeds often enough to give them.

An environment that can show how a task is done (`Environment.demonstration`) is played accordingly. The turns are authored and have no ids:
they are to be judged, never to be trained on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

from agentloop.environment.base import Split, StepResult, Task
from agentloop.evaluation.planted import authored_turn
from agentloop.sampling.origin import Origin
from agentloop.trace.tree import Tree, Turn

Demonstration = Callable[[Task], Sequence[str] | None]
"""How a task is done; None where nobody can show it."""


class Player(Protocol):
    """An environment instance."""

    async def reset(self, task: Task) -> str: ...

    async def step(self, action: str) -> StepResult: ...

    def system_prompt(self) -> str: ...

    def success(self, total: float) -> bool: ...


class Pool(Protocol):
    """Where instances come from."""

    def instance(self) -> AbstractAsyncContextManager[Player]: ...


async def demonstrated(
    tasks: Iterable[Task], demonstration: Demonstration, pool: Pool, *, environment: str, split: Split, seed: int = 0
) -> AsyncIterator[Tree]:
    """For each task whose demonstration succeeds, a tree with that one episode. Other tasks are left out.

    Args:
        tasks: Tasks of the environment.
        demonstration: Actions that solve a task; most often the method of that name of an instance.
        pool: Instances to play them in.
        environment: Name of the environment, kept with the trees.
        split: Split of the tasks, likewise.
        seed: Of the trees.

    Raises:
        EnvironmentFailure: The environment broke.
    """
    origin = Origin(stage="demonstrated", environment=environment, split=split, seed=seed)
    for task in tasks:
        actions = demonstration(task)
        if not actions:
            continue
        async with pool.instance() as player:
            first = await player.reset(task)
            turns: list[Turn] = []
            total = 0.0
            for number, action in enumerate(actions):
                result = await player.step(action)
                total += result.reward
                turns.append(authored_turn(f"0.{number}", turns[-1].id if turns else None, action, result))
                if result.done or result.truncated:
                    break
            if not turns[-1].done or not player.success(total):
                continue
            yield Tree(
                id=origin.tree_id(task.id),
                task=task.id,
                environment=environment,
                split=split,
                turns=(*turns[:-1], replace(turns[-1], success=True)),
                system_prompt=player.system_prompt(),
                first_observation=first,
                task_data=dict(task.data),
                seed=origin.tree_seed(task.id),
            )
