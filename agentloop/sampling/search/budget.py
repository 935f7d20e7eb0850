"""When the search of a task ends before it has done all that it was asked for."""

from __future__ import annotations

from agentloop.sampling.search.growth import Growth
from agentloop.sampling.search.settings import Limits
from agentloop.trace.tree import Truncation


def exhausted(growth: Growth, limits: Limits) -> Truncation | None:
    """Why nothing further may be begun: what the paths that are still open are then cut by. None if the search may go on."""
    if limits.until_win and growth.solved:
        return "budget"
    if limits.tokens is not None and growth.generated >= limits.tokens:
        return "budget"
    if limits.seconds is not None and growth.seconds >= limits.seconds:
        return "time"
    return None
