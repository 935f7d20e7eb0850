"""Trees as a search leaves them, judged and with rows made of them: what the tests of drawings draw."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from agentloop.dataset.row import Provenance, Row
from agentloop.trace.tree import Draw, Tree, Turn, Verdict
from agentloop.trace.verdict import BAD, FIRST_ERROR, GOOD
from tests.sampling.search_world import mcts, search


def decode(ids: Sequence[int]) -> str:
    """What the characters' tokenizer of the search world says of ids."""
    return "".join(map(chr, ids))


def judged_tree(*, simulations: int = 8, width: int = 3, depth: int = 5) -> Tree:
    """A searched tree of a game with wins and losses, with the first error of a losing path found by a critic whose turn is kept."""
    (tree,), _ = asyncio.run(search(mcts(simulations=simulations, width=width, depth=depth), count=1, first=2))
    loss = next(leaf for leaf in tree.leaves() if not leaf.success and len(tree.path(leaf.id)) > 2)
    good, bad, *_ = tree.path(loss.id)
    said = replace(_turn("judge", bad.id, text="Bad"), seat="critic", role="critic", fresh="critic", extends=None)
    verdicts = [Verdict(FIRST_ERROR, good.id, 1.0, GOOD, stage="000/errors")]
    verdicts.append(Verdict(FIRST_ERROR, bad.id, 0.0, BAD, (said.id,), stage="000/errors"))
    return tree.with_verdicts(verdicts, [said])


def splice(tree: Tree) -> Row:
    """A row that trains on the way to a win and holds the way to a loss, as a revision does."""
    win = next(leaf for leaf in tree.leaves() if leaf.success)
    good = [turn.id for turn in tree.path(win.id)]
    loss = next(leaf for leaf in tree.leaves() if not leaf.success and tree.path(leaf.id)[0].id != good[0])
    bad = tuple(turn.id for turn in tree.path(loss.id))
    return row("row-1", Provenance(tree.id, tuple(good), (FIRST_ERROR,), "rows", 0, bad))


def row(name: str, provenance: Provenance) -> Row:
    """A row of that provenance; its ids do not matter here."""
    return Row(name, (1, 2), (0, 1), None, "actor", "game", 1.0, True, "base", 1.0, provenance)


def deep_tree(turns: int) -> Tree:
    """One path of that many turns, and a second way out of its first."""
    path = list(_path(turns))
    return Tree("000/trees/deep", "deep", "toy", "train", (*path, _turn("out", path[0].id)))


def _path(turns: int) -> Iterator[Turn]:
    for number in range(turns):
        yield _turn(f"t{number}", f"t{number - 1}" if number else None)


def _turn(name: str, parent: str | None, *, text: str = "go") -> Turn:
    start = parent is None or name == "judge"
    return Turn(
        id=name,
        parent=parent,
        extends=None if start else parent,
        fresh="start" if start else None,
        prompt_ids=tuple(map(ord, "Was this a mistake?")),
        completion_ids=(65,),
        logprobs=(-0.1,),
        text=text,
        draw=Draw("base"),
        action=None if name == "judge" else text,
        observation=None if name == "judge" else "went",
    )
