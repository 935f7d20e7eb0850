"""Preferences: pairs of a better and a worse branch of one tree, for DPO (arXiv:2305.18290) over whole trajectories or single turns.

trajectory  Two ended episodes, each from the turn at which they part to its end, valued by their returns. In a group they part at the
            start, in a search at an inner node. What they have in common is the prompt. (As in ETO, arXiv:2403.02502.)
turn        Two sibling turns, each alone, valued by the mean return of the ended episodes below them. (As in
            MCTS-DPO, arXiv:2405.00451.)

`by` names a critic whose verdict on the leaf (or on the turn) takes the place of the return. Both sides continue the same ids: pairs whose
contexts differ are left out, and so are trajectories whose context was started afresh behind the fork, which one sequence cannot hold;
under a template that drops earlier thinking only pairs of turns remain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from statistics import fmean
from typing import Literal

from agentloop.dataset.preference_row import PreferenceRow, Side
from agentloop.dataset.preference_schema import PREFERENCES
from agentloop.dataset.row import Provenance
from agentloop.dataset.segment_row import name_of
from agentloop.dataset.trajectory import Trajectory, fork, trajectories
from agentloop.trace.episode import ended
from agentloop.trace.segment import segment_ids
from agentloop.trace.tree import Tree, Turn

FORMAT = PREFERENCES


@dataclass(frozen=True, slots=True)
class Settings:
    """What the recipe's `build` stage may say of `dataset: preference`.

    Attributes:
        unit: Whole branches, or single turns.
        margin: Least difference in value, exclusive.
        pairs: Most pairs a task over all trees, the widest apart first, each branch once before any is used again.
        by: Critic whose verdict is the value; None is the return.
        role: Only turns that this role played; None means any.
        seat: Only turns of this seat; None means any.
    """

    unit: Literal["trajectory", "turn"] = "trajectory"
    margin: float = 0.0
    pairs: int = 1
    by: str | None = None
    role: str | None = None
    seat: str | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """One side of a pair in the making: turns that follow each other, with a value."""

    turns: tuple[Turn, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair that may become a row.

    Attributes:
        chosen: The better branch.
        rejected: The worse one.
        order: Places of the two among the branches that are compared, the best and the worst first.
    """

    chosen: Branch
    rejected: Branch
    order: tuple[int, int]

    @property
    def rank(self) -> tuple[float, int, int]:
        """Smaller is taken earlier: the widest apart, then those that use each branch once."""
        better, worse = self.order
        return (self.rejected.value - self.chosen.value, abs(better - worse), better)


def build(trees: Iterable[Tree], settings: Settings = Settings(), *, stage: str = "", iteration: int = 0) -> Iterator[PreferenceRow]:
    """Preference rows, tree by tree; equal trees give equal rows. Trees must be whole."""
    counted: Counter[str] = Counter()
    for tree in trees:
        values = {verdict.turn: verdict.value for verdict in tree.verdicts if verdict.critic == settings.by and verdict.value is not None}
        found = _trajectories(tree, settings, values) if settings.unit == "trajectory" else _siblings(tree, settings, values)
        for candidate in sorted(found, key=lambda candidate: candidate.rank):
            if counted[tree.task] >= settings.pairs:
                break
            row = _row(tree, candidate, settings, stage, iteration)
            if row is not None:
                counted[tree.task] += 1
                yield row


def _trajectories(tree: Tree, settings: Settings, values: dict[str, float]) -> Iterator[Candidate]:
    """Every two ended episodes that differ in value by more than the margin; the better one was not cut short."""
    found = [
        (path, values[path.leaf.id] if settings.by else path.reward)
        for path in trajectories(tree, role=settings.role, seat=settings.seat)
        if settings.by is None or path.leaf.id in values
    ]
    ranked = sorted(found, key=lambda entry: -entry[1])
    for (better, (good, high)), (place, (bad, low)) in combinations(enumerate(ranked), 2):
        if high - low > settings.margin and good.complete:
            common = fork(bad, good)
            if common < min(len(good.turns), len(bad.turns)):
                yield Candidate(_branch(good, common, high), _branch(bad, common, low), (better, len(ranked) - 1 - place))


def _branch(path: Trajectory, common: int, value: float) -> Branch:
    return Branch(path.turns[common:], value)


def _siblings(tree: Tree, settings: Settings, values: dict[str, float]) -> Iterator[Candidate]:
    """Every two sibling turns that differ in value by more than the margin."""
    below = values if settings.by else _means(tree)
    for parent in [None, *(turn.id for turn in tree.turns if not turn.from_critic)]:
        children = [
            turn
            for turn in tree.children(parent)
            if turn.id in below and not turn.given and settings.role in (None, turn.role) and settings.seat in (None, turn.seat)
        ]
        ranked = sorted(children, key=lambda turn: -below[turn.id])
        for (better, good), (place, bad) in combinations(enumerate(ranked), 2):
            if below[good.id] - below[bad.id] > settings.margin:
                sides = Branch((good,), below[good.id]), Branch((bad,), below[bad.id])
                yield Candidate(*sides, (better, len(ranked) - 1 - place))


def _means(tree: Tree) -> dict[str, float]:
    """Mean return of the ended episodes below each turn that has any."""
    returns: dict[str, list[float]] = {}
    for leaf in ended(tree):
        reward = tree.episode_return(leaf.id)
        for turn in tree.path(leaf.id):
            returns.setdefault(turn.id, []).append(reward)
    return {turn: fmean(found) for turn, found in returns.items()}


def _row(tree: Tree, candidate: Candidate, settings: Settings, stage: str, iteration: int) -> PreferenceRow | None:
    """The row of a pair; None where the two sides do not continue one context, cannot be one sequence, or say the same."""
    first, other = candidate.chosen.turns[0], candidate.rejected.turns[0]
    prompt = tuple(tree.context_ids(first.id))
    chosen, rejected = _ids(candidate.chosen.turns), _ids(candidate.rejected.turns)
    if chosen is None or rejected is None or chosen == rejected or prompt != tuple(tree.context_ids(other.id)):
        return None
    verdicts = (settings.by,) if settings.by else ()
    sides = []
    for branch, (ids, mask) in ((candidate.chosen, chosen), (candidate.rejected, rejected)):
        before = tuple(turn.id for turn in tree.path(branch.turns[0].id)[:-1])
        where = Provenance(tree.id, tuple(turn.id for turn in branch.turns), verdicts, stage, iteration, before)
        sides.append(Side(ids, mask, branch.value, where))
    better, worse = sides
    content = [list(prompt), *([list(side.ids), list(side.mask)] for side in sides), 1.0]
    return PreferenceRow(
        id=name_of(content, better.provenance, worse.provenance),
        prompt_ids=prompt,
        chosen=better,
        rejected=worse,
        role=first.role,
        task=tree.task,
        authored=any(turn.authored for turn in (*candidate.chosen.turns, *candidate.rejected.turns)),
        adapter=first.draw.adapter,
        temperature=first.draw.temperature,
    )


def _ids(turns: Sequence[Turn]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Ids and mask of a branch behind the prompt of its first turn; None where a later turn does not continue the one before."""
    if any(turn.extends != before.id for before, turn in pairwise(turns)):
        return None
    whole = (replace(turns[0], extends=None, fresh="start", prompt_ids=()), *turns[1:])
    ids, mask, _ = segment_ids(whole)
    return ids, mask
