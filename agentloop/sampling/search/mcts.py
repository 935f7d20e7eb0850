"""Monte-Carlo tree search of one task: `uct` says which leaf, `expand` finds its children, in waves.

A walk begins at the root, has the leaf that UCT selects expanded, goes on from there, and ends where its path does: one simulation (as in
Agent-R, arXiv:2501.11425; with an `Estimate` it ends at the first new child, which is estimated). Up to `leaves` walks are under way; a
wave takes each of them one expansion further. The leaves of a wave are chosen one after another, each leaving a virtual loss behind, are
expanded together, and are applied in the order in which they were chosen. So what is found depends on the seed and the settings alone, and
not on which request came back first; with `leaves` 1 it is the search that makes one request after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentloop.sampling.search import estimate, expand
from agentloop.sampling.search.arena import Arena, gather
from agentloop.sampling.search.budget import exhausted
from agentloop.sampling.search.growth import Growth
from agentloop.sampling.search.settings import MctsSettings
from agentloop.sampling.search.uct import Child, Node, Uct
from agentloop.trace.search_statistics import NodeStatistics
from agentloop.trace.tree import Tree, Truncation


@dataclass(eq=False)
class _Walk:
    """A simulation under way.

    Attributes:
        number: Its number.
        at: Where it is.
        expanded: Whether it has had a node expanded.
    """

    number: int
    at: Node
    expanded: bool = False


class Search:
    """The search of one task.

    Args:
        arena: Where candidates are drawn and tried.
        growth: The tree, planted.
        settings: See there.
        value: What new leaves are worth; None walks every path to its end.

    Attributes:
        uct: The statistics.
    """

    def __init__(self, arena: Arena, growth: Growth, settings: MctsSettings, value: estimate.Estimate | None = None) -> None:
        self._arena = arena
        self._growth = growth
        self._settings = settings
        self._value = value
        self._walks: list[_Walk] = []
        self._begun = 0
        self.uct = Uct(exploration=settings.exploration, seed=growth.seed)

    async def run(self) -> Tree:
        """Search until the simulations, or a budget, are used up, or every path has ended.

        Raises:
            ContextFull: Not even the first observation fits.
            RunFailed: Admissible actions are asked for and the environment lists none.
        """
        cut: Truncation | None = None
        while cut is None and (wave := self._choose()):
            await self._wave(wave)
            cut = exhausted(self._growth, self._settings.limits)
        nodes = [node for node in self.uct if node.parent is not None]
        self._growth.cut_open((node.id for node in nodes if not node.expanded and not node.terminal), cut or "budget")
        self._growth.failed = not self.uct.root.children
        return self._growth.tree({node.id: NodeStatistics(node.visits, node.mean) for node in nodes})

    def _choose(self) -> list[tuple[_Walk, Node]]:
        """The leaves of the next wave, each reserved, with the walks that they belong to; none when there is nothing left to do."""
        chosen: list[tuple[_Walk, Node]] = []
        for walk in [*self._walks]:
            self._choose_for(walk, chosen)
        while len(self._walks) < self._settings.leaves and self._begun < self._settings.simulations and not self.uct.root.terminal:
            walk = _Walk(self._begun, self.uct.root)
            if not self._choose_for(walk, chosen):
                break  # every leaf is under expansion in this wave
            self._walks.append(walk)
            self._begun += 1
        return chosen

    def _choose_for(self, walk: _Walk, chosen: list[tuple[_Walk, Node]]) -> bool:
        """Reserve the walk's next leaf. Without one the walk has come to its end, or waits for the others of this wave."""
        leaf = self.uct.select(walk.number, walk.at)
        if leaf is None:
            if walk.at.terminal:
                self._end(walk)
            return False
        self.uct.reserve(leaf)
        chosen.append((walk, leaf))
        return True

    def _end(self, walk: _Walk) -> None:
        self._walks.remove(walk)
        self._growth.simulations += walk.expanded

    async def _wave(self, wave: Sequence[tuple[_Walk, Node]]) -> None:
        """Expand the leaves together and apply what was found in their order; then the estimates, likewise."""
        found = await gather(
            expand.expand(self._arena, self._growth, leaf.id, settings=self._settings.expansion, kind="uct", simulation=walk.number)
            for walk, leaf in wave
        )
        for (walk, leaf), one in zip(wave, found, strict=True):
            self.uct.release(leaf)
            self._apply(leaf, one)
            walk.at, walk.expanded = leaf, True
        if self._value is not None:
            await self._estimates([walk for walk, _ in wave])
        for walk, _ in wave:
            if walk.at.terminal and walk in self._walks:
                self._end(walk)

    def _apply(self, leaf: Node, found: expand.Found) -> None:
        expand.add(self._arena, self._growth, found)
        if found.closed is not None:
            self.uct.back_up(leaf, self._growth.total(leaf.id))
            self.uct.close(leaf)
        else:
            self.uct.expand(leaf, [Child(child.turn, child.ended, child.value) for child in found.children])

    async def _estimates(self, walks: Sequence[_Walk]) -> None:
        """Have one child of each walk's leaf estimated and backed up; these walks have come to their end."""
        assert self._value is not None
        leaves = [(walk, leaf) for walk in walks if (leaf := self.uct.select(walk.number, walk.at)) is not None]
        estimated = await gather(self._value(self._arena, self._growth, leaf.id, simulation=walk.number) for walk, leaf in leaves)
        for (_, leaf), one in zip(leaves, estimated, strict=True):
            estimate.add(self._arena, self._growth, one)
            if one.value is not None:
                self.uct.back_up(leaf, one.value)
        for walk in walks:
            self._end(walk)
