"""Rewards that are no one's verdict, and signs of a degenerate episode; counted from its turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from agentloop.trace.tree import Turn

NGRAM = 20
REPEATS = 10


def used_tool(turn: Turn) -> bool:
    """Whether the environment took the turn for an action: it answered, and not with an error."""
    return turn.observation is not None and not turn.info.get("errors")


def tool_uses(turns: Sequence[Turn], most: int) -> tuple[float, ...]:
    """1 for each turn of an episode that used a tool, of the first `most` that did; 0 for the others.

    SPEAR (arXiv:2509.22601) adds mu * min(1, 0.1 n) to the return of an episode with n such turns: with `most` 10, each is worth 0.1 mu.
    """
    found, used = [], 0
    for turn in turns:
        counts = used_tool(turn) and used < most
        used += counts
        found.append(float(counts))
    return tuple(found)


def repeats_itself(ids: Sequence[int], size: int = NGRAM, times: int = REPEATS) -> bool:
    """Whether some run of `size` ids occurs more than `times` times, overlapping ones counted (SPEAR masks such episodes)."""
    runs = Counter(tuple(ids[at : at + size]) for at in range(len(ids) - size + 1))
    return any(count > times for count in runs.values())
