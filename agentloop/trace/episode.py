"""Episodes in a tree: which turns ended one, and how."""

from __future__ import annotations

from collections.abc import Iterator

from agentloop.trace.tree import Tree, Truncation, Turn

STOPPED: frozenset[Truncation] = frozenset({"budget", "time"})
"""What cuts a path without its having come to anything: the search had no more to spend on it, or left it for others."""


def ended(tree: Tree) -> Iterator[Turn]:
    """The last turns of the episodes that the environment ended or that were cut, in the order of the tree.

    Leaves where a search merely stopped are none of them, nor are those after which an episode broke: what broke is no outcome.
    """
    broken = {failure.turn for failure in tree.failures}
    for leaf in tree.leaves():
        if leaf.id not in broken and (leaf.done or (leaf.truncated is not None and leaf.truncated not in STOPPED)):
            yield leaf


def succeeded(leaf: Turn) -> bool:
    """Whether the episode that ends in this turn counts as solved: the environment ended it and called it a success."""
    return bool(leaf.success) and leaf.truncated is None
