"""Where candidates are drawn and tried: the seat, the environment instances, and what is counted.

Every piece of work is done again where it broke by something that may pass, as an episode of a group would be. What still breaks is a
`Broken`, never an outcome of the policy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from agentloop.engine.base import EngineFailure
from agentloop.environment.base import StepResult
from agentloop.environment.failure import EnvironmentFailure
from agentloop.sampling.draw import Drawn, draw
from agentloop.sampling.failure import PERMANENT, Broken, FailureLog, first_of, kind_of
from agentloop.sampling.reach import reach
from agentloop.sampling.search.growth import ROOT, Growth
from agentloop.sampling.seat import Player, Pool, Seat

Result = TypeVar("Result")


@dataclass
class Counts:
    """What a stage did, over all its trees.

    Attributes:
        candidates: Candidates that were drawn, whether or not they broke.
        expansions: Nodes that were expanded.
        duplicates: Candidates that did what another one did.
        restored: States that were reached from a snapshot.
        replayed: Actions that were played again to reach a state.
        engine_seconds: Sum over requests of the seconds at the engine.
        environment_seconds: Sum of the seconds with an environment instance, the wait for it included.
    """

    candidates: int = 0
    expansions: int = 0
    duplicates: int = 0
    restored: int = 0
    replayed: int = 0
    engine_seconds: float = 0.0
    environment_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stepped:
    """What an action led to.

    Attributes:
        result: What the environment answered.
        total: Return up to and with this step.
        success: Whether the episode succeeded; None where it goes on.
        state: Snapshot of the state that it led to; None where it ended or there are none.
        seconds: Seconds of the step itself.
    """

    result: StepResult
    total: float
    success: bool | None
    state: Any
    seconds: float


@dataclass
class Arena:
    """What the searches of one stage share.

    Attributes:
        seat: Who plays.
        pool: Environment instances; one is held for a step and the way to it, and but for rollouts never while the engine works.
        log: What broke.
        counts: What was done.
    """

    seat: Seat
    pool: Pool
    log: FailureLog
    counts: Counts = field(default_factory=Counts)

    async def attempt(self, work: Callable[[int], Awaitable[Result]]) -> Result | Broken:
        """Do some work, given the number of the attempt; again, `retries` times, where it broke by something that may pass."""
        retries = self.seat.settings.retries
        for number in range(retries + 1):
            found = await _once(work, number)
            if not isinstance(found, Broken) or found.kind in PERMANENT or number == retries:
                break
            self.log.add_retry(found.failure(0, None))
        return found

    async def plant(self, growth: Growth) -> Broken | None:
        """Find the root of a tree: the first observation, the system prompt, and the state if there are snapshots."""

        async def work(_: int) -> None:
            with self.waiting():
                async with self.pool.instance() as player:
                    growth.first_observation = await player.reset(growth.task)
                    prompt = self.seat.preface.system_prompt
                    growth.system_prompt = player.system_prompt() if prompt is None else prompt
                    growth.states[ROOT] = await growth.snapshots.take(player, None)

        return await self.attempt(work)

    async def draw(self, context: tuple[int, ...], seed: int) -> Drawn | Broken:
        """Sample a completion."""
        drawn = await self.attempt(lambda _: draw(self.seat, context, seed))
        if not isinstance(drawn, Broken):
            self.counts.engine_seconds += drawn.seconds
        return drawn

    async def step(self, growth: Growth, node: str, action: str, child: str) -> Stepped | Broken:
        """Act at a node. The state that it leads to is kept as that of `child`."""

        async def work(number: int) -> Stepped:
            async with self.reached(growth, node, snapshots=not number) as (player, total):
                with self.waiting():
                    begun = time.monotonic()
                    result = await player.step(action)
                    seconds = time.monotonic() - begun
                    total += result.reward
                    if result.done:
                        return Stepped(result, total, player.success(total), None, seconds)
                    state = None if result.truncated else await growth.snapshots.take(player, child)
                    return Stepped(result, total, None, state, seconds)

        return await self.attempt(work)

    async def actions(self, growth: Growth, node: str) -> tuple[str, ...] | Broken | None:
        """Admissible actions at a node, or None where the environment does not list them."""

        async def work(number: int) -> tuple[str, ...] | None:
            async with self.reached(growth, node, snapshots=not number) as (player, _):
                with self.waiting():
                    return await player.actions()

        return await self.attempt(work)

    @asynccontextmanager
    async def reached(self, growth: Growth, node: str, *, snapshots: bool = True) -> AsyncIterator[tuple[Player, float]]:
        """An instance in the state of a node, and the return on the way there. Raises `EnvironmentFailure`.

        Args:
            growth: The tree.
            node: The node.
            snapshots: Whether snapshots are used; after a failure it is replayed from the root.
        """
        async with AsyncExitStack() as stack:
            with self.waiting():
                player = await stack.enter_async_context(self.pool.instance())
                found = await reach(
                    player,
                    growth.task,
                    growth.path(node),
                    first_observation=growth.first_observation,
                    snapshots=growth.snapshots if snapshots else None,
                )
            self.counts.restored += found.restored
            self.counts.replayed += found.replayed
            yield player, found.total

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While something waits for an environment, and so not for the engine."""
        begun = time.monotonic()
        try:
            with self.seat.admission.environment():
                yield
        finally:
            self.counts.environment_seconds += time.monotonic() - begun


async def gather(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results, in the order of `work` and not of their coming in. The first error stops the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    return [task.result() for task in tasks]


async def _once(work: Callable[[int], Awaitable[Result]], number: int) -> Result | Broken:
    try:
        return await work(number)
    except (EngineFailure, EnvironmentFailure) as error:
        return Broken(kind_of(error), error)
    except asyncio.CancelledError as error:
        task_of_ours = asyncio.current_task()
        if task_of_ours is None or task_of_ours.cancelling():
            raise
        return Broken("episode.cancelled", error)  # by something inside; a task group would drop the work without a word
