"""Who may go to the engine, and when the next episode starts: the engine's queue stays full and the number of live episodes stays bounded.

Two limits do that. `slots` bounds the requests at the engine at once; an episode holds a slot only while the engine works for it.
`episodes` bounds the episodes alive. In between, a new episode starts as soon as those that want the engine (in it or queueing for it) no
longer fill the slots, because the others wait for their environments. So a slow environment costs live episodes and not engine time, and
where the episodes that are alive fill the engine, no further one competes with them for its prefix cache. A wait counts only once it has
lasted for `patience`: an environment that answers at once frees nothing that would be worth another live episode.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

PATIENCE = 0.01
"""Seconds; little beside a generation, much beside an environment that only computes."""


class Admission:
    """Counts live episodes, those that wait for their environment, and requests at the engine.

    Args:
        slots: Most requests at the engine at once.
        episodes: Most episodes alive at once.
        patience: Seconds that an episode must have waited for its environment before another may take its place at the engine.
        requests: Requests that one episode (of a search: one tree) has at the engine or waiting for its environment at once, about.

    Attributes:
        alive: Episodes admitted and not yet left.
        waiting: Requests' worth of these that wait for their environment and have done so for `patience`.
        at_engine: Requests at the engine now.
        most_at_engine: Most requests that were at the engine at once.
        most_alive: Most episodes that were alive at once.
    """

    def __init__(self, slots: int, episodes: int, *, patience: float = PATIENCE, requests: int = 1) -> None:
        self._patience = patience
        self._slots = slots
        self._episodes = episodes
        self._requests = requests
        self._engine = asyncio.Semaphore(slots)
        self._room = asyncio.Event()
        self._room.set()
        self.alive = 0
        self.waiting = 0
        self.at_engine = 0
        self.most_at_engine = 0
        self.most_alive = 0

    def _update(self) -> None:
        if self.alive < self._episodes and self.alive * self._requests - self.waiting < self._slots:
            self._room.set()
        else:
            self._room.clear()

    async def admit(self) -> None:
        """Wait until there is room for one more episode and count it as alive. One caller at a time."""
        await self._room.wait()
        self.alive += 1
        self.most_alive = max(self.most_alive, self.alive)
        self._update()

    def leave(self) -> None:
        """An admitted episode has ended."""
        self.alive -= 1
        self._update()

    @contextmanager
    def environment(self) -> Iterator[None]:
        """While an episode waits for its environment (or for the disk), and so not for the engine."""
        timer = asyncio.get_running_loop().call_later(self._patience, self._count_waiting, waits := [False])
        try:
            yield
        finally:
            timer.cancel()
            if waits[0]:
                self.waiting -= 1
                self._update()

    def _count_waiting(self, waits: list[bool]) -> None:
        waits[0] = True
        self.waiting += 1
        self._update()

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[None]:
        """Wait for a slot and hold it; first come, first served."""
        async with self._engine:
            self.at_engine += 1
            self.most_at_engine = max(self.most_at_engine, self.at_engine)
            try:
                yield
            finally:
                self.at_engine -= 1
