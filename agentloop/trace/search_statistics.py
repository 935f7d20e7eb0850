"""Visits and values of the nodes of a search, kept in its tree as verdicts of the search itself.

A turn that was a node of the search has a verdict "visits" (how many values were backed up through it) and, if that is not 0, a verdict
"value" (their mean). So they are stored, hashed and read like any other verdict, and a builder that adds verdicts to returns can use the
value of a step as its process reward. What no search made has neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from agentloop.trace.tree import Tree, Verdict

VISITS = "visits"
VALUE = "value"


class NodeStatistics(NamedTuple):
    """What a search knew of a node when it ended: how many values were backed up through it, and their mean (None if there were none)."""

    visits: int
    value: float | None


def statistics_verdicts(turn: str, statistics: NodeStatistics, *, stage: str) -> Iterator[Verdict]:
    """The statistics of a turn as verdicts."""
    yield Verdict(VISITS, turn, float(statistics.visits), stage=stage)
    if statistics.value is not None:
        yield Verdict(VALUE, turn, statistics.value, stage=stage)


def search_statistics(tree: Tree) -> dict[str, NodeStatistics]:
    """The statistics of every turn that was a node of a search, by turn; empty for a tree that no search made."""
    visits: dict[str, int] = {}
    values: dict[str, float] = {}
    for verdict in tree.verdicts:
        if verdict.value is not None and verdict.critic == VISITS:
            visits[verdict.turn] = int(verdict.value)
        elif verdict.value is not None and verdict.critic == VALUE:
            values[verdict.turn] = verdict.value
    return {turn: NodeStatistics(count, values.get(turn)) for turn, count in visits.items()}
