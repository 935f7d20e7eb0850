"""Reflection: train on noticing one's own first error and going right from there (Agent-R, arXiv:2501.11425).

Two forms of the same row, bad path up to its first error, revision thought, good tail, with the loss on the thought and the tail alone:

published   Two paths of one tree are spliced (`agentloop.dataset.splice`). The bad one is cut after the first turn that the critic
            "first_error" calls Bad; where it calls none Bad, the whole bad path stays, which is direct revision. The critic may find the
            error in what both paths have in common: the thought then comes after the first turn that only the bad one has. A bad path
            that the critic has not walked is left out, since nobody knows where it went wrong.
replayed    The trees are those of a `sample` stage with `start_from`: episodes that took up a bad path and went on in the environment.
            Those that reached `alpha` are rows, all observations as they really came. `beta` does not matter here: what is a bad path was
            decided by `start_from`.

In both, good paths from the start are plain rows too (the two terms of the paper's loss, equation 5) where `good` asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from agentloop.dataset.row import Row
from agentloop.dataset.splice import Pair, Revisions, SpliceSettings
from agentloop.dataset.trajectory import trajectories
from agentloop.trace.author import Author
from agentloop.trace.tree import Tree
from agentloop.trace.verdict import FIRST_ERROR, first_error, is_walked


@dataclass(frozen=True, slots=True)
class Settings(SpliceSettings):
    """What the recipe's `build` stage may say of `dataset: reflection`.

    Attributes:
        form: Spliced from two paths, or really continued, see the module.
    """

    form: Literal["published", "replayed"] = "published"


def build(trees: Iterable[Tree], settings: Settings = Settings(), *, author: Author, stage: str = "", iteration: int = 0) -> Iterator[Row]:
    """Revision rows, and plain rows of good paths, tree by tree; equal trees give equal rows. Trees must be whole."""
    replayed = settings.form == "replayed"
    revisions = Revisions(settings, author, stage=stage, iteration=iteration, verdicts=() if replayed else (FIRST_ERROR,))
    for tree in trees:
        yield from _replayed(tree, settings, revisions) if replayed else revisions.of_pairs(tree, after_first_error)


def after_first_error(tree: Tree, pair: Pair) -> int | None:
    """Where a pair is cut: after the bad path's first error, and after at least one turn that only the bad path has."""
    bad = pair.bad
    if not is_walked(tree, bad.leaf.id):
        return None
    error = first_error(tree, bad.leaf.id)
    if error is None:
        return len(bad.turns)
    return max(next(number for number, turn in enumerate(bad.turns) if turn.id == error.id), pair.fork) + 1


def _replayed(tree: Tree, settings: Settings, revisions: Revisions) -> Iterator[Row]:
    for path in trajectories(tree, role=settings.role, seat=settings.seat):
        start = sum(turn.given for turn in path.turns)
        before, after = path.turns[:start], path.turns[start:]
        if not (before and path.complete and path.reward >= settings.alpha and revisions.takes(tree.task, before, after)):
            continue
        draft = revisions.author.after(tree, before[-1].id)
        for last, turn in pairwise(path.turns[start - 1 :]):
            draft.repeat(last.observation or "", turn)
        yield from revisions.of_draft(tree, draft, before, reward=path.reward)
    yield from revisions.of_good_paths(tree)
