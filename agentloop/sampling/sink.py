"""Where finished episodes and trees go, and how they are handed over without holding up the others."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Protocol

from agentloop.trace.tree import Tree


class Sink(Protocol):
    """Where finished episodes go."""

    @property
    def finished(self) -> Container[tuple[str, int]]:
        """(tree id, sample) of every episode that it already holds."""
        ...

    def add(self, fragment: Tree) -> None:
        """Keep it; called from a thread, several at a time."""
        ...


async def keep(sink: Sink, fragment: Tree) -> None:
    """Hand a fragment to the sink, in a thread since that waits for the disk; it is kept even while the stage is cancelled."""
    keeping = asyncio.ensure_future(asyncio.to_thread(sink.add, fragment))
    try:
        await asyncio.shield(keeping)
    except asyncio.CancelledError:
        await keeping
        raise
