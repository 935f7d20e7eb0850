"""On the map no turn hides another, and each hangs below its parent."""

from __future__ import annotations

from hypothesis import given, settings

from agentloop.report.marks import marks_of
from agentloop.report.tree_map import STACKED, TreeMap, tree_map
from agentloop.report.tree_view import NodeView, tree_view
from agentloop.trace.tree import Tree
from tests.dataset.grown_trees import bushy_trees
from tests.report.searched import decode, judged_tree, splice


def check(nodes: tuple[NodeView, ...], drawn: TreeMap) -> None:
    assert [spot.node for spot in drawn.spots] == list(range(len(nodes))) and len(drawn.lines) == len(nodes)
    for spot in drawn.spots:
        parent = nodes[spot.node].parent
        assert spot.y > (drawn.root[1] if parent is None else drawn.spots[parent].y)
        assert spot.radius > 0 and spot.radius <= spot.x <= drawn.width - spot.radius and spot.y <= drawn.height - spot.radius
    apart = sorted(drawn.spots, key=lambda spot: spot.y)
    for place, spot in enumerate(apart):
        for other in apart[place + 1 :]:
            if other.y - spot.y >= spot.radius + other.radius:
                break
            assert (spot.x - other.x) ** 2 + (spot.y - other.y) ** 2 >= (spot.radius + other.radius) ** 2, (spot, other)


@settings(max_examples=80, deadline=None)
@given(bushy_trees("smollm2"))
def test_no_turn_hides_another(tree: Tree) -> None:
    nodes = tree_view(tree, {}, decode).nodes
    check(nodes, tree_map(nodes))


def test_nor_in_a_large_tree_which_stays_narrow_enough_to_look_at() -> None:
    nodes = tree_view(judged_tree(simulations=90, width=4, depth=12), {}, decode).nodes
    leaves = len(nodes) - len({node.parent for node in nodes} - {None})
    assert len(nodes) > 800 and leaves > STACKED
    drawn = tree_map(nodes)
    check(nodes, drawn)
    assert drawn.width < 1500


def test_size_tells_visits_shade_tells_value_and_thick_lines_tell_rows() -> None:
    tree = judged_tree()
    made = splice(tree)
    nodes = tree_view(tree, marks_of([made]), decode).nodes
    drawn = tree_map(nodes)
    visited = sorted((node.visits or 0, drawn.spots[place].radius) for place, node in enumerate(nodes))
    assert [radius for _, radius in visited] == sorted(radius for _, radius in visited) and visited[0][1] < visited[-1][1]
    valued = sorted((node.value, drawn.spots[place].fill) for place, node in enumerate(nodes) if node.value is not None)
    assert valued[0][1] == "hsl(215 75% 88%)" and valued[-1][1] == "hsl(215 75% 38%)"
    assert sum(line.use == "trained" for line in drawn.lines) == len(made.provenance.turns)
    assert {nodes[spot.node].outcome for spot in drawn.spots if spot.shape == "square"} == {"success"}
