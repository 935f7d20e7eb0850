"""A tree as a person reads it: one line a turn with what the search, the environment and the critics know of it, and what became of it.

The turns of critics are no nodes: each stands with the verdict that it led to. The lines are in the order in which a tree is walked depth
first, and cut into *strands*: a strand runs from a branch to the next one or to its leaf, so that a long path without branches is a list
and only a branching is indented and can be folded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agentloop.report.marks import Mark, Marks, Use, use_of
from agentloop.report.trajectory import Decode
from agentloop.trace.search_statistics import VALUE, VISITS, search_statistics
from agentloop.trace.tree import Tree, Turn, Verdict
from agentloop.trace.verdict import BAD, GOOD, UNPARSABLE

LINE = 220
"""Characters of an action or an observation that stand in a line; the rest is unfolded."""
MOST_TEXT = 4000
"""Characters that are unfolded, so that a large tree stays a page that a browser opens."""
UNFOLDED = 60
"""Turns of a tree up to which all of it is unfolded at first; of a larger one only the paths that became rows and the most visited one."""

Outcome = Literal["", "success", "failure", "cut"]
"""How the episode went that ends with a turn: "" where none ends."""


@dataclass(frozen=True, slots=True)
class VerdictView:
    """What one critic said of a turn.

    Attributes:
        said: Its label, or its value where it has none.
        tone: "good" or "bad" for the labels that say so, else "".
        answers: Questions and answers that led to it, in order.
    """

    critic: str
    stage: str
    said: str
    tone: str
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NodeView:
    """One turn.

    Attributes:
        parent: Place of the parent in the view's nodes; None at the root.
        depth: Turns before it.
        action: What the environment was given, in a line.
        observation: What it answered, in a line; None if it did not.
        unfolded: (heading, text) of what the line does not hold.
        visits: Values that a search backed up through it; None if no search did.
        value: Their mean.
        ending: Why the episode ends here, in words; "" if it goes on.
        returned: Sum of rewards up to and with this turn.
        notes: What else is worth knowing, in words: how it was drawn, what broke.
        use: What the rows that hold it do with it.
        heads: Whether it begins a strand in which more follows.
        is_open: Whether that strand is unfolded at first.
        branches: Whether strands follow it.
        ends_strand: Whether the strand that it stands in, and does not head, ends with it.
        ends_branchings: How many branchings end after it, and with each the strand that leads to it.
        below: What the strand holds beyond this turn, in words; "" if nothing.
    """

    turn: str
    parent: int | None
    depth: int
    action: str
    observation: str | None
    unfolded: tuple[tuple[str, str], ...]
    visits: int | None
    value: float | None
    reward: float
    returned: float
    outcome: Outcome
    ending: str
    verdicts: tuple[VerdictView, ...]
    notes: tuple[str, ...]
    marks: tuple[Mark, ...]
    use: Use | None
    heads: bool = False
    is_open: bool = False
    branches: bool = False
    ends_strand: bool = False
    ends_branchings: int = 0
    below: str = ""

    @property
    def broken(self) -> bool:
        """Whether a critic calls it bad."""
        return any(verdict.said == BAD for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class TreeView:
    """One tree to show.

    Attributes:
        id: Id of the tree.
        about: What there is to say of it in a line.
        told: (heading, text) of what precedes the first turn.
        nodes: In depth-first order; a parent precedes its children.
        failures: What broke that belongs to no turn that is shown.
        searched: Whether a search made it, so that there are visits and values.
        row_ends: Places of the turns in which what rows train on, or against, ends: the ways to the marked paths.
    """

    id: str
    task: str
    about: str
    told: tuple[tuple[str, str], ...]
    nodes: tuple[NodeView, ...]
    failures: tuple[str, ...]
    searched: bool
    row_ends: tuple[int, ...]


def tree_view(tree: Tree, marks: Marks, decode: Decode) -> TreeView:
    """What there is to show of a tree; `decode` reads the questions of critics."""
    nodes = _unfold(_strands(_nodes(tree, marks, decode)))
    shown = {node.turn for node in nodes}
    endings = [node for node in nodes if node.outcome]
    rows = {mark.row for node in nodes for mark in node.marks}
    about = [_count(len(nodes), "turn"), _count(len(endings), "ending"), f"{sum(node.outcome == 'success' for node in endings):,} won"]
    if endings:
        about.append(f"best return {max(node.returned for node in endings):g}")
    usual = _usual_draw(tree)
    if usual != "policy":
        about.append(f"drawn: {usual}")
    about.append(_count(len(rows), "training row") if rows else "in no training row")
    texts = (("system prompt", tree.system_prompt), ("first observation", tree.first_observation))
    return TreeView(
        id=tree.id,
        task=tree.task,
        about=" · ".join(about),
        told=tuple((heading, _bounded(text)) for heading, text in texts if text),
        nodes=tuple(nodes),
        failures=tuple(f"{failure.kind}: {failure.message}" for failure in tree.failures if failure.turn not in shown),
        searched=any(node.visits is not None for node in nodes),
        row_ends=_row_ends(nodes),
    )


def _nodes(tree: Tree, marks: Marks, decode: Decode) -> list[NodeView]:
    """One view a turn of an episode, depth first."""
    statistics = search_statistics(tree)
    verdicts: dict[str, list[VerdictView]] = {}
    for verdict in tree.verdicts:
        if verdict.critic not in (VISITS, VALUE):
            verdicts.setdefault(verdict.turn, []).append(_verdict(verdict, tree, decode))
    broke: dict[str, list[str]] = {}
    for failure in tree.failures:
        broke.setdefault(failure.turn or "", []).append(f"broke after it: {failure.kind}: {failure.message}")
    nodes: list[NodeView] = []
    usual = _usual_draw(tree)
    waiting: list[tuple[Turn, int | None]] = [(turn, None) for turn in reversed(tree.children(None))]
    while waiting:
        turn, parent = waiting.pop()
        known = statistics.get(turn.id)
        uses = marks.get((tree.id, turn.id), ())
        nodes.append(
            NodeView(
                turn=turn.id,
                parent=parent,
                depth=0 if parent is None else nodes[parent].depth + 1,
                action=_line(turn.text if turn.action is None else turn.action),
                observation=None if turn.observation is None else _line(turn.observation),
                unfolded=_unfolded(turn),
                visits=None if known is None else known.visits,
                value=None if known is None else known.value,
                reward=turn.reward,
                returned=turn.reward + (0.0 if parent is None else nodes[parent].returned),
                outcome=_outcome(turn),
                ending=_ending(turn),
                verdicts=tuple(verdicts.get(turn.id, ())),
                notes=(*_notes(turn, usual), *broke.get(turn.id, ())),
                marks=uses,
                use=use_of(uses),
            )
        )
        waiting += [(child, len(nodes) - 1) for child in reversed(tree.children(turn.id))]
    return nodes


def _strands(nodes: Sequence[NodeView]) -> list[NodeView]:
    """The nodes with their strands: where each begins and ends, and what it holds."""
    children: dict[int | None, list[int]] = {}
    for place, node in enumerate(nodes):
        children.setdefault(node.parent, []).append(place)
    below = [0] * len(nodes)
    wins = [int(node.outcome == "success") for node in nodes]
    best: list[float | None] = [node.returned if node.outcome else None for node in nodes]
    for place in range(len(nodes) - 1, -1, -1):
        parent = nodes[place].parent
        if parent is not None:
            below[parent] += below[place] + 1
            wins[parent] += wins[place]
            best[parent] = max((value for value in (best[parent], best[place]) if value is not None), default=None)
    heads = [node.parent is None or len(children[node.parent]) > 1 for node in nodes]
    found = []
    for place, node in enumerate(nodes):
        leaf = place not in children
        found.append(
            replace(
                node,
                heads=heads[place] and not leaf,
                branches=len(children.get(place, ())) > 1,
                ends_strand=leaf and not heads[place],
                ends_branchings=_branchings_ended(place, nodes, children) if leaf else 0,
                below=_below(below[place], wins[place], best[place]) if heads[place] and not leaf else "",
            )
        )
    return found


def _branchings_ended(leaf: int, nodes: Sequence[NodeView], children: Mapping[int | None, list[int]]) -> int:
    """How many turns with several children have this leaf as the last turn below them."""
    ended, place = 0, leaf
    while True:
        parent = nodes[place].parent
        if parent is None or children[parent][-1] != place:
            return ended
        ended += len(children[parent]) > 1
        place = parent


def _below(turns: int, wins: int, best: float | None) -> str:
    parts = [f"{_count(turns, 'turn')} below"]
    if wins:
        parts.append(f"{wins:,} won")
    if best is not None:
        parts.append(f"best return {best:g}")
    return ", ".join(parts)


def _unfold(nodes: Sequence[NodeView]) -> list[NodeView]:
    """Decide which strands are unfolded at first."""
    wanted = set(range(len(nodes))) if len(nodes) <= UNFOLDED else _telling(nodes)
    return [replace(node, is_open=node.heads and place in wanted) for place, node in enumerate(nodes)]


def _row_ends(nodes: Sequence[NodeView]) -> tuple[int, ...]:
    used = [node.use in ("trained", "rejected") for node in nodes]
    goes_on = {node.parent for place, node in enumerate(nodes) if used[place]}
    return tuple(place for place in range(len(nodes)) if used[place] and place not in goes_on)


def _telling(nodes: Sequence[NodeView]) -> set[int]:
    """Places on the way to a turn that a row trains on or against, and on the most visited path."""
    found: set[int] = set()
    ends = list(_row_ends(nodes))
    place: int | None = None
    while True:
        below = [at for at, node in enumerate(nodes) if node.parent == place]
        if not below:
            break
        place = max(below, key=lambda at: nodes[at].visits or 0)
        ends.append(place)
    for end in ends:
        at: int | None = end
        while at is not None and at not in found:
            found.add(at)
            at = nodes[at].parent
    return found


def _outcome(turn: Turn) -> Outcome:
    if turn.success:
        return "success"
    if turn.truncated:
        return "cut"
    return "failure" if turn.done or turn.success is False else ""


def _ending(turn: Turn) -> str:
    return {"success": "success", "failure": "no success", "cut": f"cut: {turn.truncated}", "": ""}[_outcome(turn)]


def _usual_draw(tree: Tree) -> str:
    """How most turns of the episodes were drawn; it is said once of the tree, and of a turn only where it differs."""
    kinds = Counter(turn.draw.kind for turn in tree.turns if not turn.from_critic)
    return kinds.most_common(1)[0][0] if kinds else "policy"


def _notes(turn: Turn, usual_draw: str) -> tuple[str, ...]:
    notes = []
    if turn.seat != "actor":
        notes.append(f"seat {turn.seat}")
    if turn.draw.kind != usual_draw:
        notes.append(f"drawn: {turn.draw.kind}")
    if turn.draw.copies > 1:
        notes.append(f"{turn.draw.copies} draws alike")
    if turn.given:
        notes.append("taken over from another tree")
    if turn.fresh not in (None, "start"):
        notes.append(f"context started afresh: {turn.fresh}")
    if turn.finish == "length":
        notes.append("cut by the token limit")
    return tuple(notes)


def _unfolded(turn: Turn) -> tuple[tuple[str, str], ...]:
    """What the line of a turn leaves out: long texts, and what the model said where the environment was given something else."""
    found = []
    said = turn.text if turn.action is None else turn.action
    if turn.text != said:
        found.append(("said", _bounded(turn.text)))
    for heading, text in (("action", said), ("observation", turn.observation or "")):
        if _line(text) != text:
            found.append((heading, _bounded(text)))
    return tuple(found)


def _verdict(verdict: Verdict, tree: Tree, decode: Decode) -> VerdictView:
    value = "" if verdict.value is None else f"{verdict.value:.3g}"
    said = verdict.label or value or UNPARSABLE
    tone = {GOOD: "good", BAD: "bad", UNPARSABLE: "bad"}.get(said, "")
    answers = tuple((_bounded(_question(tree[turn], decode)), _bounded(tree[turn].text)) for turn in verdict.turns)
    return VerdictView(verdict.critic, verdict.stage, said, tone, answers)


def _question(turn: Turn, decode: Decode) -> str:
    return str(turn.info.get("question", "")) if turn.foreign else decode(turn.prompt_ids)


def _line(text: str) -> str:
    """The text without line breaks and runs of white space, cut to a line's length."""
    whole = " ".join(text.split())
    return whole if len(whole) <= LINE else whole[:LINE] + "…"


def _bounded(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}\n… and {len(text) - MOST_TEXT:,} characters more"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
