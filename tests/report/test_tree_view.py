"""A drawn tree holds every turn once, under the turns that led to it, whatever its shape and whatever it says."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import given, settings

from agentloop.dataset.row import Provenance
from agentloop.report.html import render_tree
from agentloop.report.marks import marks_of
from agentloop.report.tree_view import MOST_TEXT, UNFOLDED, NodeView, tree_view
from agentloop.trace.search_statistics import search_statistics
from agentloop.trace.tree import Tree, Turn, Verdict
from tests.dataset.grown_trees import bushy_trees
from tests.report.searched import decode, deep_tree, judged_tree, row, splice

VOID = {"meta", "br", "line"}


class Outline(HTMLParser):
    """Reads a page back: which turns it draws, and under which.

    Attributes:
        under: For each turn that is drawn, in order, the turns whose folding hides it: those that head the strands around it.
        text: All text.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.under: dict[str, list[str]] = {}
        self.text = ""
        self._open: list[str] = []
        self._heads: list[str | None] = []
        self.feed(page)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "details":
            self._heads.append(None)
        if found.get("data-turn") is not None:
            turn = str(found["data-turn"])
            assert turn not in self.under, f"{turn} is drawn twice"
            if self._open[-2] == "summary":
                self._heads[-1] = turn
            self.under[turn] = [head for head in self._heads if head is not None and head != turn]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without an end, as `<line/>`."""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"
        if tag == "details":
            self._heads.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def episode_turns(tree: Tree) -> list[Turn]:
    return [turn for turn in tree.turns if not turn.from_critic]


@settings(max_examples=60, deadline=None)
@given(bushy_trees("smollm2"))
def test_every_turn_is_drawn_once_under_the_branches_that_lead_to_it(tree: Tree) -> None:
    outline = Outline(render_tree(tree_view(tree, {}, decode)))
    assert outline.under.keys() == {turn.id for turn in tree.turns}
    for turn in tree.turns:
        path = tree.path(turn.id)
        begins = [step for step in path if step.parent is None or len(tree.children(step.parent)) > 1]
        assert outline.under[turn.id] == [step.id for step in begins if step.id != turn.id]
    drawn = list(outline.under)
    assert all(turn.parent is None or drawn.index(turn.parent) < drawn.index(turn.id) for turn in tree.turns)


@settings(max_examples=60, deadline=None)
@given(bushy_trees("smollm2"))
def test_what_is_below_a_strand_is_counted(tree: Tree) -> None:
    view = tree_view(tree, {}, decode)
    for node in view.nodes:
        assert node.returned == sum(turn.reward for turn in tree.path(node.turn))
        below = [turn for turn in tree.turns if node.turn in [step.id for step in tree.path(turn.id)][:-1]]
        assert bool(below) == node.heads or not node.heads
        if node.heads:
            assert node.below.startswith(f"{len(below)} turn")
            wins = sum(bool(turn.success) for turn in below)
            assert (f", {wins} won" in node.below) == (wins > 0)


def test_a_node_has_its_visits_its_value_and_its_verdicts() -> None:
    tree = judged_tree()
    statistics = search_statistics(tree)
    nodes = {node.turn: node for node in tree_view(tree, {}, decode).nodes}
    assert statistics and {turn: (node.visits, node.value) for turn, node in nodes.items() if node.visits is not None} == {
        turn: tuple(known) for turn, known in statistics.items()
    }
    assert "judge" not in nodes, "a critic's turn is no step of the episode"
    judged = [(verdict.said, verdict.tone, verdict.answers) for node in nodes.values() for verdict in node.verdicts]
    assert judged == [("Good", "good", ()), ("Bad", "bad", (("Was this a mistake?", "Bad"),))]
    assert sum(node.broken for node in nodes.values()) == 1


def test_an_unreadable_verdict_is_said_to_be_one() -> None:
    tree = deep_tree(2)
    judged = tree.with_verdicts([Verdict("rubric", "t0", None, "unparsable"), Verdict("rubric", "t1", 0.5)])
    said = {node.turn: [verdict.said for verdict in node.verdicts] for node in tree_view(judged, {}, decode).nodes}
    assert said == {"t0": ["unparsable"], "t1": ["0.5"], "out": []}


def test_the_path_that_became_a_row_is_marked_and_no_other() -> None:
    tree = judged_tree()
    made = splice(tree)
    view = tree_view(tree, marks_of([made]), decode)
    assert {node.turn for node in view.nodes if node.use == "trained"} == set(made.provenance.turns)
    assert {node.turn for node in view.nodes if node.use == "context"} == set(made.provenance.context)
    assert [view.nodes[place].turn for place in view.row_ends] == [made.provenance.turns[-1]]
    other = replace(tree, id="000/trees/other")
    assert not any(node.use for node in tree_view(other, marks_of([made]), decode).nodes)


def test_of_a_large_tree_the_marked_and_the_most_visited_path_are_unfolded() -> None:
    tree = judged_tree(simulations=40, width=4, depth=12)
    made = splice(tree)
    nodes = tree_view(tree, marks_of([made]), decode).nodes
    assert len(nodes) > 3 * UNFOLDED
    opened = {node.turn for node in nodes if node.is_open}
    marked = {node.turn for node in nodes if node.heads and node.turn in made.provenance.turns}
    assert marked and marked <= opened and max(nodes, key=lambda node: node.visits or 0).turn in opened
    assert len(opened) < sum(node.heads for node in nodes) / 3


def test_a_long_path_is_drawn_as_a_list() -> None:
    """A document as deep as an episode is long would break parsers, and be indented out of sight."""
    outline = Outline(render_tree(tree_view(deep_tree(3000), {}, decode)))
    assert len(outline.under) == 3001 and max(map(len, outline.under.values())) == 2


def test_what_is_said_cannot_become_markup_and_is_not_cut_without_a_word() -> None:
    attack = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    tree = deep_tree(2)
    turns = tuple(replace(turn, id=turn.id + attack, parent=turn.parent and turn.parent + attack) for turn in tree.turns)
    turns = tuple(replace(turn, extends=turn.parent, action=attack, text=attack * 2, observation=attack * 999) for turn in turns)
    hostile = replace(tree, task=attack, first_observation=attack, system_prompt=attack, turns=turns)
    hostile = hostile.with_verdicts([Verdict(attack, turns[0].id, None, attack, stage=attack)])
    made = row(attack, Provenance(hostile.id, (turns[0].id,), stage=attack))
    page = render_tree(tree_view(hostile, marks_of([made]), decode))
    assert "<script" not in page and "<img" not in page
    outline = Outline(page)
    assert len(outline.under) == 3 and attack in outline.text
    assert f"and {len(attack) * 999 - MOST_TEXT:,} characters more" in outline.text


def test_a_tree_without_turns_can_be_drawn() -> None:
    view = tree_view(Tree("000/trees/a", "a", "toy", "train"), {}, decode)
    assert view.nodes == () and "0 turns" in render_tree(view)


def test_a_view_says_how_a_turn_was_drawn_where_that_differs_from_the_others() -> None:
    tree = deep_tree(4)
    scored = replace(tree.turns[-1], draw=replace(tree.turns[-1].draw, kind="admissible", copies=2))
    notes: dict[str, NodeView] = {node.turn: node for node in tree_view(replace(tree, turns=(*tree.turns[:-1], scored)), {}, decode).nodes}
    assert notes["out"].notes == ("drawn: admissible", "2 draws alike") and notes["t1"].notes == ()
