"""UCT, and nothing else: visits and values of nodes, which leaf comes next, and what is never selected again. No engine, no environment.

The rules are those of Agent-R (arXiv:2501.11425, section 3.1 and its code), which follow Kocsis and Szepesvári (2006):

- the score of a child is V / N + c sqrt(ln N_parent / N), with V the sum of the values backed up through it and N their number; a child
  that was never visited comes before all others; ties are broken by seed;
- a node is expanded once;
- a terminal child is backed up when it is made, and never selected;
- a node is terminal when all its children are, and so on up to the root, where the search ends.

Several leaves may be under expansion at once (`reserve`, `release`): each counts as a visit with value 0 on the whole way to the root until
its result is in (virtual loss; Chaslot et al. 2008), so that the next leaf is sought elsewhere, and no leaf is given out twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agentloop.sampling.seed import derive

EXPLORATION = 0.25
"""c of the score, as in the code of Agent-R."""


class Child(NamedTuple):
    """A child that an expansion found.

    Attributes:
        id: Its id, unique in the tree.
        terminal: Whether nothing follows it.
        value: What is backed up if it is terminal.
    """

    id: str
    terminal: bool = False
    value: float = 0.0


@dataclass(eq=False)
class Node:
    """A node and its statistics.

    Attributes:
        id: "" for the root.
        depth: Its distance from the root.
        visits: Values that were backed up through it.
        value: Their sum.
        pending: Leaves under it (or itself) that are under expansion.
        expanded: Whether its children were sought, also where there are none.
        terminal: Whether it is never selected again.
    """

    id: str
    parent: Node | None = field(default=None, repr=False)
    depth: int = 0
    children: list[Node] = field(default_factory=list, repr=False)
    visits: int = 0
    value: float = 0.0
    pending: int = 0
    expanded: bool = False
    terminal: bool = False

    @property
    def mean(self) -> float | None:
        """Mean of the values that were backed up; None before the first."""
        return self.value / self.visits if self.visits else None

    @property
    def open(self) -> bool:
        """Whether it may be selected as a leaf now."""
        return not self.expanded and not self.terminal and not self.pending

    def ancestry(self) -> Iterator[Node]:
        """The node, its parent, and so on to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


class Uct:
    """A tree of statistics.

    Args:
        exploration: c of the score.
        seed: Breaks ties.

    Attributes:
        root: Where it begins.
    """

    def __init__(self, *, exploration: float = EXPLORATION, seed: int = 0) -> None:
        self._exploration = exploration
        self._seed = seed
        self.root = Node("")
        self._nodes = {"": self.root}

    def __getitem__(self, node_id: str) -> Node:
        """The node of that id; raises `KeyError`."""
        return self._nodes[node_id]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def select(self, simulation: int, start: Node | None = None) -> Node | None:
        """The leaf that is to be expanded next, from `start` (default: the root) down by the best score.

        Args:
            simulation: Number of the simulation, which ties depend on.
            start: Where the walk is.

        Returns:
            None if every leaf under `start` is terminal or under expansion.
        """
        node = self.root if start is None else start
        if node.terminal or not node.expanded:
            return node if node.open else None
        for child in self._ranked(node, simulation):
            leaf = self.select(simulation, child)
            if leaf is not None:
                return leaf
        return None

    def score(self, child: Node) -> float:
        """UCT of a child, virtual losses included; infinite if it was never visited and is not under expansion."""
        assert child.parent is not None
        visits = child.visits + child.pending
        if not visits:
            return math.inf
        around = child.parent.visits + child.parent.pending
        return child.value / visits + self._exploration * math.sqrt(math.log(around) / visits)

    def reserve(self, leaf: Node) -> None:
        """The leaf goes under expansion: a virtual loss up to the root."""
        for node in leaf.ancestry():
            node.pending += 1

    def release(self, leaf: Node) -> None:
        """The virtual loss of `reserve` is taken back."""
        for node in leaf.ancestry():
            node.pending -= 1

    def expand(self, leaf: Node, children: Sequence[Child]) -> list[Node]:
        """Give a leaf its children and back up the terminal ones, in their order. Without children it is a dead end, and terminal.

        Raises:
            ValueError: It was expanded already, or is terminal.
        """
        if leaf.expanded or leaf.terminal:
            raise ValueError(f"node {leaf.id!r} was expanded before, or is terminal")
        leaf.expanded = True
        for child in children:
            node = Node(child.id, leaf, leaf.depth + 1, terminal=child.terminal)
            leaf.children.append(node)
            self._nodes[child.id] = node
        for child in children:
            if child.terminal:
                self.back_up(self._nodes[child.id], child.value)
        self._settle(leaf)
        return leaf.children

    def back_up(self, node: Node, value: float) -> None:
        """Count a value for the node and all above it."""
        for ancestor in node.ancestry():
            ancestor.visits += 1
            ancestor.value += value

    def close(self, leaf: Node) -> None:
        """Make a leaf terminal: it turned out that nothing follows it. Nothing is backed up."""
        leaf.terminal = True
        if leaf.parent is not None:
            self._settle(leaf.parent)

    def _settle(self, node: Node) -> None:
        """Make it terminal if all its children are, and then its parent, and so on."""
        for ancestor in node.ancestry():
            if not all(child.terminal for child in ancestor.children):
                return
            ancestor.terminal = True

    def _ranked(self, node: Node, simulation: int) -> list[Node]:
        """Children that are not terminal, the best first; equals in an order that the seed, the simulation and their ids decide."""
        return sorted(
            (child for child in node.children if not child.terminal),
            key=lambda child: (-self.score(child), derive(self._seed, "tie", simulation, child.id)),
        )
