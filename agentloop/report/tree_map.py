"""The shape of a tree at a glance: a drawing in which a circle is a turn, larger the more often a search visited it, darker the higher its
value; thick lines are the paths that became training rows. A click on a circle goes to the turn in the outline below.

The layout is the plainest that never lets two turns overlap: leaves stand side by side, a parent over the middle of its children, a level
a turn. Where there are too many leaves for that, those of one parent stand below each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agentloop.report.marks import Use
from agentloop.report.tree_view import NodeView

WIDTH = 1000.0
"""Pixels over which the leaves of a tree are spread; one with very many is wider and is scrolled."""
NARROWEST, WIDEST = 4.0, 46.0
"""Pixels between leaves."""
STACKED = 100
"""Leaves beyond which those of one parent stand below each other."""
HEIGHT = 420.0
"""Pixels over which the levels are spread."""
LOWEST, HIGHEST = 20.0, 40.0
"""Pixels between levels."""
MARGIN = 16.0


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a turn is drawn.

    Attributes:
        node: Its place in the view's nodes.
        x: Pixels from the left.
        y: Pixels from the top.
        radius: Pixels.
        fill: Colour by value; "" where there is none.
        shape: "square" for an episode that succeeded, "circle" for all others.
        title: What a pointer over it shows.
    """

    node: int
    x: float
    y: float
    radius: float
    fill: str
    shape: str
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """The line from a turn's parent to it, coloured by what rows do with the turn."""

    x1: float
    y1: float
    x2: float
    y2: float
    use: Use | None


@dataclass(frozen=True, slots=True)
class TreeMap:
    """A drawing; `root` is the spot of the first observation, from which all lines come."""

    width: float
    height: float
    root: tuple[float, float]
    spots: tuple[Spot, ...]
    lines: tuple[Line, ...]


def tree_map(nodes: Sequence[NodeView]) -> TreeMap:
    """Lay the nodes of a view (depth first, parents before children) out."""
    columns, ranks, root = _columns(nodes)
    count = max(columns, default=0.0) + 1
    across = min(WIDEST, max(NARROWEST, WIDTH / count))
    down = min(HIGHEST, max(LOWEST, HEIGHT / (1 + max((node.depth for node in nodes), default=0))))
    radii = _radii(nodes, most=min(across, down) / 2 - 0.5)
    fills = _fills(nodes)
    x = [MARGIN + across * (column + 0.5) for column in columns]
    y = [MARGIN + down * (node.depth + 1) + across * rank for node, rank in zip(nodes, ranks, strict=True)]
    top = (MARGIN + across * (root + 0.5), MARGIN)
    spots = tuple(
        Spot(place, x[place], y[place], radii[place], fills[place], "square" if node.outcome == "success" else "circle", _title(node))
        for place, node in enumerate(nodes)
    )
    lines = tuple(
        Line(*(top if node.parent is None else (x[node.parent], y[node.parent])), x[place], y[place], node.use)
        for place, node in enumerate(nodes)
    )
    unmarked_first = tuple(sorted(lines, key=lambda line: line.use is not None))  # what is drawn later lies above
    return TreeMap(2 * MARGIN + across * count, max([*y, MARGIN]) + down / 2 + MARGIN, top, spots, unmarked_first)


def _columns(nodes: Sequence[NodeView]) -> tuple[list[float], list[int], float]:
    """(column of each node, leaves numbered from the left; its rank in a stack of leaves; column of the root)."""
    parents = {node.parent for node in nodes}
    leaves = [place for place in range(len(nodes)) if place not in parents]
    stacked = len(leaves) > STACKED
    columns, ranks = [0.0] * len(nodes), [0] * len(nodes)
    first: dict[int | None, float] = {}
    last: dict[int | None, float] = {}
    stacks: dict[int | None, list[int]] = {}
    free = len({nodes[place].parent for place in leaves}) if stacked else len(leaves)
    for place in range(len(nodes) - 1, -1, -1):
        parent = nodes[place].parent
        if place in parents:
            columns[place] = (first[place] + last[place]) / 2
        elif stacked and parent in stacks:
            columns[place] = columns[stacks[parent][0]]
            stacks[parent].append(place)
        else:
            free -= 1
            columns[place] = float(free)
            stacks[parent] = [place]
        last.setdefault(parent, columns[place])
        first[parent] = min(columns[place], first.get(parent, columns[place]))
    for stack in stacks.values() if stacked else ():
        for rank, place in enumerate(reversed(stack)):
            ranks[place] = rank
    return columns, ranks, (first.get(None, 0.0) + last.get(None, 0.0)) / 2


def _radii(nodes: Sequence[NodeView], most: float) -> list[float]:
    """Areas in proportion to visits; without a search, all alike."""
    largest = max((node.visits or 0 for node in nodes), default=0)
    least = min(3.0, most)
    if not largest:
        return [min(5.0, most)] * len(nodes)
    return [least + (most - least) * math.sqrt((node.visits or 0) / largest) for node in nodes]


def _fills(nodes: Sequence[NodeView]) -> list[str]:
    """Light to dark blue from the lowest value of the tree to the highest; "" without a value."""
    values = [node.value for node in nodes if node.value is not None]
    low, span = (min(values), max(values) - min(values) or 1.0) if values else (0.0, 1.0)
    return ["" if node.value is None else f"hsl(215 75% {88 - 50 * (node.value - low) / span:.0f}%)" for node in nodes]


def _title(node: NodeView) -> str:
    parts = [f"turn {node.turn}"]
    if node.visits is not None:
        parts.append(f"{node.visits} visits")
    if node.value is not None:
        parts.append(f"value {node.value:.3g}")
    parts += [f"{verdict.critic}: {verdict.said}" for verdict in node.verdicts]
    if node.ending:
        parts.append(f"{node.ending}, return {node.returned:g}")
    if node.use:
        parts.append(node.use)
    return " · ".join(parts) + f"\n{node.action}" + ("" if node.observation is None else f"\n→ {node.observation}")
