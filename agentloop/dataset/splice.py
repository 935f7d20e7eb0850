"""Pairs of a bad and a good path of one tree, spliced into a trajectory that goes wrong, notices it, and goes right (Agent-R,
arXiv:2501.11425, section 3.1).

For every two paths with r(good) >= alpha and r(good) - r(bad) >= beta (the published code asks for more than alpha and beta, which at
alpha = 1 would keep nothing), the row is::

    bad path up to the cut | revision thought, answered "ok." | good path from where the two part
    context, mask 0        | mask 1                           | mask 1

The good tail's observations come from the branch on which the bad actions never happened; the row is true only where these can be taken
back. What really happens after them is sampled by `start_from`, for `reflection` in its form "replayed".

Ids up to the cut are those that the model saw and produced, and the tail's completions those that were sampled; the thought, and what
lies between turns behind the cut, is written by an `Author`. Every such row is authored. Pairs that would make the same row twice (paths
that part only behind the cut) make it once.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agentloop.dataset import self_imitation
from agentloop.dataset.row import Row
from agentloop.dataset.segment_row import segment_row
from agentloop.dataset.trajectory import Trajectory, fork, trajectories
from agentloop.trace.author import Author, Draft
from agentloop.trace.thoughts import THOUGHTS, choose
from agentloop.trace.tree import Tree, Turn

ROUNDING = 1e-9
"""Differences of returns are sums of floats: 1.0 - 0.8 is to count as 0.2."""


@dataclass(frozen=True, slots=True)
class SpliceSettings:
    """What the builders that splice have in common.

    Attributes:
        alpha: Least return of a good path, inclusive.
        beta: Least difference between a good path and a bad one, inclusive; equal paths are no pair whatever it is.
        best: Most good paths a tree, by return, then by fewer turns; None takes all, as published. A policy that has learned to revise
            finds good ways with needless revisions, and imitates them too where all are taken.
        per_task: Most pairs a task over all trees, the widest apart first; None means no cap.
        good: Whether good paths are rows too, plain ones.
        thoughts: Revision thoughts, of which each pair has one, chosen by the seed of the tree; None is a list of ten.
        answer: What is shown to the model after its thought.
        role: Only paths that this role played; None means any.
        seat: Only paths of this seat; None means any.
    """

    alpha: float = 1.0
    beta: float = 0.2
    best: int | None = None
    per_task: int | None = None
    good: bool = True
    thoughts: tuple[str, ...] | None = None
    answer: str = "ok."
    role: str | None = None
    seat: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two paths of one tree.

    Attributes:
        bad: The worse one.
        good: The better one.
        fork: Turns that they have in common.
    """

    bad: Trajectory
    good: Trajectory
    fork: int

    @property
    def gap(self) -> float:
        """How much better the good one is."""
        return self.good.reward - self.bad.reward


Cut = Callable[[Tree, Pair], int | None]
"""Number of the bad path's turns before the revision thought, more than are common; None where the pair is to be left out."""


def pairs(tree: Tree, settings: SpliceSettings) -> list[Pair]:
    """All pairs of the tree, the widest apart first, those of one width in an order that the tree's seed decides."""
    found = list(trajectories(tree, role=settings.role, seat=settings.seat))
    chosen: list[Pair] = []
    for good in _good(found, settings):
        for bad in found:
            pair = Pair(bad, good, fork(bad, good))
            wide = pair.gap > 0 and pair.gap >= settings.beta - ROUNDING
            if wide and pair.fork < min(len(bad.turns), len(good.turns)):
                chosen.append(pair)
    random.Random(f"{tree.seed}/{tree.id}/pairs").shuffle(chosen)
    return sorted(chosen, key=lambda pair: -pair.gap)


def _good(found: Sequence[Trajectory], settings: SpliceSettings) -> list[Trajectory]:
    """The paths that are good enough, best first where `best` limits them, else in the order of the tree."""
    good = [path for path in found if path.complete and path.reward >= settings.alpha]
    if settings.best is None:
        return good
    return sorted(good, key=lambda path: (-path.reward, len(path.turns)))[: settings.best]


class Revisions:
    """Makes the rows of one build, tree by tree. What it remembers in between grows with tasks and kept rows, not with turns.

    Args:
        settings: Which pairs, and what is said between.
        author: Writes what nobody sampled.
        stage: Id of the build stage.
        iteration: Iteration of the build.
        verdicts: Names of the critics whose verdicts shape the rows.

    Attributes:
        author: As given.
    """

    def __init__(self, settings: SpliceSettings, author: Author, *, stage: str, iteration: int, verdicts: tuple[str, ...] = ()) -> None:
        self._settings = settings
        self.author = author
        self._stage = stage
        self._iteration = iteration
        self._verdicts = verdicts
        self._kept: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._good = self_imitation.Memory()

    def of_pairs(self, tree: Tree, cut: Cut) -> Iterator[Row]:
        """The rows of all pairs of a tree, each cut where `cut` says, and its good paths as plain rows where the settings ask for them."""
        for pair in pairs(tree, self._settings):
            at = cut(tree, pair)
            if at is not None and self.takes(tree.task, pair.bad.turns[:at], pair.good.turns[pair.fork :]):
                yield from self._splice(tree, pair, at)
        yield from self.of_good_paths(tree)

    def of_draft(self, tree: Tree, draft: Draft, before: Sequence[Turn], *, reward: float) -> Iterator[Row]:
        """A row for each context of a draft, trained on what was added after the turns `before`, all of which its provenance names."""
        added = {turn.id for turn in draft.added}
        context = tuple(turn.id for turn in before)
        for segment in draft.segments:
            yield segment_row(
                tree,
                segment,
                reward=reward,
                stage=self._stage,
                iteration=self._iteration,
                verdicts=self._verdicts,
                trained=added,
                context=context,
            )
            context += tuple(turn.id for turn in segment if turn.id in added and turn.id in tree)

    def of_good_paths(self, tree: Tree) -> Iterator[Row]:
        """The tree's good paths as plain rows, if they are asked for. None of a tree whose episodes took up those of another: there every
        path is a revision.
        """
        if self._settings.good and not any(turn.given for turn in tree.turns):
            chosen = self_imitation.Settings(
                min_reward=self._settings.alpha, best=self._settings.best, role=self._settings.role, seat=self._settings.seat
            )
            yield from self_imitation.rows_of(tree, chosen, self._good, stage=self._stage, iteration=self._iteration)

    def takes(self, task: str, before: Sequence[Turn], after: Sequence[Turn]) -> bool:
        """Whether a splice of these turns is to be made: no equal one was, and its task has room. Counts it if so."""
        done = [[turn.completion_ids for turn in turns] for turns in (before, after)]
        key = hashlib.sha256(repr((task, done)).encode()).digest()
        cap = self._settings.per_task
        if key in self._seen or (cap is not None and self._kept[task] >= cap):
            return False
        self._seen.add(key)
        self._kept[task] += 1
        return True

    def _splice(self, tree: Tree, pair: Pair, at: int) -> Iterator[Row]:
        """The row of one pair, cut after `at` turns of the bad path; several where the template starts contexts afresh."""
        before = pair.bad.turns[:at]
        last = before[-1]
        draft = self.author.after(tree, last.id)
        draft.say(last.observation or "", choose(self._settings.thoughts or THOUGHTS, tree.seed, tree.id, last.id, pair.good.leaf.id))
        shown = self._settings.answer
        for turn in pair.good.turns[pair.fork :]:
            draft.repeat(shown, turn)
            shown = turn.observation or ""
        yield from self.of_draft(tree, draft, before, reward=pair.good.reward)
