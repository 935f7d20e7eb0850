"""Instances of one environment: made when they are needed, used again, and closed whatever happens.

    async with EnvironmentPool(find("textcraft"), {"depth": 2}, concurrency=16) as pool:
        for task in await pool.tasks("train"):
            async with pool.instance() as player:
                observation = await player.reset(task)

At most `min(concurrency, Environment.concurrency)` instances play at once; who comes later waits for a free one. Instances
are reused from episode to episode, and closed after a failure, after a while without work, and when the pool closes. A
synchronous environment lives in a thread of its own, an asynchronous one on the event loop (where a call that blocks cannot
be timed out). One that hangs is abandoned and replaced.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

from agentloop.environment.base import Environment, Split, Task
from agentloop.environment.failure import (
    EnvironmentFailure,
    describe_error,
    format_error,
)
from agentloop.environment.player import Player, is_async
from agentloop.environment.registry import EnvironmentSpec
from agentloop.environment.worker import InstanceThread
from agentloop.errors import Mistake, WaitedTooLong

__all__ = ["EnvironmentFailure", "EnvironmentPool", "Player"]


class EnvironmentPool:
    """Hands out instances of one environment. Use it as an async context manager, or call `close`.

    Attributes:
        spec: What it makes instances of.
        limit: Most instances that play at once.
        failures: How many failures of each kind there were.
        tracebacks: The first traceback of each kind of failure.
        created: Instances made so far.
        closed: Instances that closed properly.
        abandoned: Instances left behind because they hung.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        options: Mapping[str, Any] | None = None,
        concurrency: int = 8,
        *,
        step_timeout: float | None = None,
        create_timeout: float = 120.0,
        wait_timeout: float = 600.0,
        idle_timeout: float = 300.0,
        close_timeout: float = 10.0,
    ) -> None:
        """Check the options and import the environment; no instance is made yet. Times are in seconds.

        Args:
            spec: From `registry.find`.
            options: Keyword arguments of the environment's `__init__`.
            concurrency: Most instances at once, unless the environment itself allows fewer.
            step_timeout: Longest call during an episode; by default what the environment says.
            create_timeout: Longest `__init__`.
            wait_timeout: Longest wait for a free instance during which nothing moves in the pool.
            idle_timeout: Time without work after which an instance is closed.
            close_timeout: Longest `close`.

        Raises:
            Mistake: The environment cannot be imported, or does not take these options.
        """
        environment = spec.load()
        self.spec = spec
        self.options = spec.check_options(options or {})
        self.limit = max(1, min(concurrency, environment.concurrency or concurrency))
        self.failures: Counter[str] = Counter()
        self.tracebacks: dict[str, str] = {}
        self.created = 0
        self.closed = 0
        self.abandoned = 0
        self._step_timeout = environment.step_timeout if step_timeout is None else step_timeout
        self._create_timeout = create_timeout
        self._wait_timeout = wait_timeout
        self._idle_timeout = idle_timeout
        self._close_timeout = close_timeout
        self._async = is_async(environment)
        self._slots = asyncio.Semaphore(self.limit)
        self._idle: list[tuple[float, Player]] = []
        self._playing: set[Player] = set()
        self._moved = time.monotonic()
        self._reaper: asyncio.Task[None] | None = None
        self._shut = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def instance(self) -> AsyncIterator[Player]:
        """An instance for one episode, taken back afterwards.

        Raises:
            EnvironmentFailure: It could not be made.
            WaitedTooLong: None became free, and nothing moved in the pool, within `wait_timeout`.
        """
        await self._wait_for_slot()
        try:
            player = self._idle.pop()[1] if self._idle else await self._create()
            self._playing.add(player)
            try:
                yield player
            finally:
                self._playing.discard(player)
                await self._take_back(player)
        finally:
            self._moved = time.monotonic()
            self._slots.release()

    async def tasks(self, split: Split) -> tuple[Task, ...]:
        """All tasks of a split. Raises `EnvironmentFailure`."""
        async with self.instance() as player:
            return await player.tasks(split)

    async def close(self) -> None:
        """Close every instance; idempotent. Those that still play are closed when their episode ends."""
        self._shut = True
        if self._reaper is not None:
            self._reaper.cancel()
            with suppress(asyncio.CancelledError):
                await self._reaper
            self._reaper = None
        idle, self._idle = self._idle, []
        await asyncio.gather(*(self._release(player) for _, player in idle))

    async def _wait_for_slot(self) -> None:
        """Take a slot. The wait is over when nothing has moved for `wait_timeout`, however long the queue is."""
        if self._shut:
            raise RuntimeError(f"the pool of environment {self.spec.id!r} is closed")
        asked = time.monotonic()
        acquired = asyncio.ensure_future(self._slots.acquire())
        try:
            while not acquired.done():
                moved = max(
                    [
                        asked,
                        self._moved,
                        *(player.progressed for player in self._playing),
                    ]
                )
                left = moved + self._wait_timeout - time.monotonic()
                if left <= 0:
                    what = f"a free instance of environment {self.spec.id!r} ({self.limit} at most, all playing, none has answered since)"
                    raise WaitedTooLong(
                        what,
                        self._wait_timeout,
                        "raise the environment's concurrency, or see why its steps take so long",
                    )
                await asyncio.wait({acquired}, timeout=left)
        except BaseException:
            if not acquired.cancel() and not acquired.cancelled():
                self._slots.release()
            raise

    async def _create(self) -> Player:
        """Make an instance, in a thread of its own unless it is asynchronous."""
        name = self.spec.id
        thread = None if self._async else InstanceThread(f"environment {name} {self.created}")
        made: list[Environment] = []
        try:
            environment = await self._make(thread, made)
        except BaseException:
            if thread is not None:  # an instance that is still being made is closed when it is
                thread.run(lambda: [late.close() for late in made])
                thread.stop()
            raise
        self.created += 1
        player = Player(
            environment,
            name=name,
            thread=thread,
            step_timeout=self._step_timeout,
            folder=self.spec.folder,
            record=self._record,
        )
        try:
            await player.prepare()
        except BaseException:
            await self._release(player)
            raise
        if self._reaper is None:
            self._reaper = asyncio.create_task(self._reap())
        return player

    async def _make(self, thread: InstanceThread | None, made: list[Environment]) -> Environment:
        """An instance, which is in `made` as soon as it exists."""
        try:
            if thread is None:
                return self.spec.make(**self.options)
            future = asyncio.wrap_future(thread.run(lambda: made.append(self.spec.make(**self.options))))
            try:
                outcome = await asyncio.wait_for(future, self._create_timeout)
            except TimeoutError:
                message = f"waited {self._create_timeout:g} s for environment {self.spec.id!r} to be made, in vain"
                raise self._record(EnvironmentFailure("environment.timeout", message)) from None
            if outcome.error is not None:
                raise outcome.error
            return made[0]
        except (Mistake, EnvironmentFailure):
            raise
        except (Exception, SystemExit) as error:
            message = f"environment {self.spec.id!r} could not be made: {describe_error(error, self.spec.folder)}"
            raise self._record(EnvironmentFailure("environment.create", message, format_error(error))) from error

    async def _take_back(self, player: Player) -> None:
        if player.broken or self._shut:
            await self._release(player)
        else:
            self._idle.append((time.monotonic(), player))

    async def _release(self, player: Player) -> None:
        closed = await player.close(self._close_timeout)
        self.closed += closed
        self.abandoned += player.hung

    async def _reap(self) -> None:
        """Close instances that have had nothing to do for `idle_timeout`."""
        while True:
            await asyncio.sleep(self._idle_timeout / 2)
            long_ago = time.monotonic() - self._idle_timeout
            old = [player for since, player in self._idle if since <= long_ago]
            self._idle = [(since, player) for since, player in self._idle if since > long_ago]
            await asyncio.gather(*(self._release(player) for player in old))

    def _record(self, failure: EnvironmentFailure) -> EnvironmentFailure:
        """Count a failure; only the first of its kind keeps its traceback."""
        self.failures[failure.kind] += 1
        if failure.traceback is not None:
            if failure.kind in self.tracebacks:
                failure.traceback = None
            else:
                self.tracebacks[failure.kind] = failure.traceback
        return failure
