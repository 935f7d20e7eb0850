"""Whole paths of a tree that one seat played: what pairs of a good and a bad trajectory are made from.

A path counts once its episode has ended: the environment said so, or something cut it. What broke is no outcome of the policy, and the
leaves of a search that were never gone on from have none yet; neither is a trajectory. Nor is a path on which the model lost sight
of its past (a dropped window, a summary): what it did then is no example of what to do with the whole past in view, which is what authored
contexts show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agentloop.trace.episode import ended
from agentloop.trace.tree import Tree, Turn

OVERFLOW_REASONS = ("window", "summary")
"""Reasons of a fresh context that come from the overflow policies: the model saw a shortened past there."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A path from the first turn to one that ended an episode.

    Attributes:
        turns: The turns, in order.
        reward: Return of the episode.
    """

    turns: tuple[Turn, ...]
    reward: float

    @property
    def leaf(self) -> Turn:
        """The last turn."""
        return self.turns[-1]

    @property
    def complete(self) -> bool:
        """Whether the environment ended the episode, and nothing cut it: only such a path shows how to finish."""
        return self.leaf.done and self.leaf.truncated is None

    @property
    def behaviour(self) -> tuple[tuple[int, ...], ...]:
        """What was done: completion ids, turn by turn."""
        return tuple(turn.completion_ids for turn in self.turns)


def trajectories(tree: Tree, *, role: str | None = None, seat: str | None = None) -> Iterator[Trajectory]:
    """The tree's ended episodes that one seat played alone, in the order of its leaves.

    Args:
        tree: A whole tree (all fragments merged).
        role: Only paths that this role played; None means any.
        seat: Only paths of this seat; None means any.
    """
    for leaf in ended(tree):
        path = tree.path(leaf.id)
        alone = all((turn.seat == leaf.seat and turn.role == leaf.role) or turn.given for turn in path)
        wanted = role in (None, leaf.role) and seat in (None, leaf.seat)
        if alone and wanted and not any(turn.fresh in OVERFLOW_REASONS for turn in path):
            yield Trajectory(path, tree.episode_return(leaf.id))


def fork(one: Trajectory, other: Trajectory) -> int:
    """How many turns two paths have in common from the start on: the same turn of the tree, or the same words with the same answer (the
    samples of a group are turns of their own where they agree).
    """
    common = 0
    for first, second in zip(one.turns, other.turns, strict=False):
        same = (first.completion_ids, first.observation) == (second.completion_ids, second.observation)
        if first.id != second.id and not same:
            break
        common += 1
    return common
