"""Pairwise preference: which of two episodes of a task is better; the verdict on each is the share of its comparisons that it won.

That share, a tie counting half, is the reward of SPO (arXiv:2401.04056, section 3.3): r_i = mean over rivals j of P(i better than j), where
preferences may well be intransitive. Judges favour a position, so every pair is asked in both orders and the two are averaged: a judge that
only ever names the first is left with ties. A comparison of which one order could not be read is left out. Episodes that did the same are a
tie, and nobody is asked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from statistics import fmean

from agentloop.critic.answer import Form
from agentloop.critic.base import Answer, Answers, Question, labels_read, turns_of
from agentloop.critic.transcript import log, task
from agentloop.trace.episode import ended
from agentloop.trace.tree import Tree, Turn, Verdict
from agentloop.trace.verdict import UNPARSABLE, steps

FORM = Form("Better", ("A", "B", "Tie"))
SHARES = {"A": 1.0, "B": 0.0, "Tie": 0.5}
"""What the episode that was shown first, as A, gets of a comparison."""

PROMPT = (
    "Two agents worked on the same task. Say whose episode, A or B, serves the task better. The order in which they are shown means "
    "nothing."
)


@dataclass(frozen=True, slots=True)
class Pairwise:
    """The critic.

    Attributes:
        rivals: Episodes that each is compared with (one more where the number is odd); None is all others of the tree.
        prompt: What is asked, without the logs and the form of the answer.
    """

    rivals: int | None = None
    prompt: str = PROMPT

    @property
    def name(self) -> str:
        return "pairwise"

    def questions(self, tree: Tree) -> Iterator[Question]:
        """Both orders of every pair whose episodes differ."""
        for one, other in self.pairs(tree):
            if _deeds(tree, one) != _deeds(tree, other):
                for first, second in ((one, other), (other, one)):
                    paths = steps(tree, first.id), steps(tree, second.id)
                    write = partial(self._write, tree, *paths)
                    yield Question(_key(first, second), first.id, FORM, write, steps=max(map(len, paths)))

    def after(self, tree: Tree, question: Question, votes: Sequence[Answer]) -> tuple[Question, ...]:
        """Nothing."""
        return ()

    def verdicts(self, tree: Tree, answers: Answers) -> Iterator[Verdict]:
        """One verdict an episode that was compared, on its last turn."""
        shares: dict[str, list[float]] = {}
        asked: dict[str, list[str]] = {}
        for one, other in self.pairs(tree):
            keys = (_key(one, other), _key(other, one))
            share = self._share(tree, one, other, answers)
            turns = [turn for key in keys for turn in turns_of(answers.get(key, ()))]
            for leaf, its in ((one, share), (other, None if share is None else 1.0 - share)):
                if its is not None:
                    shares.setdefault(leaf.id, []).append(its)
                if its is not None or turns:
                    asked.setdefault(leaf.id, []).extend(turns)
        for turn in tree.turns:
            if turn.id in asked:
                won = shares.get(turn.id)
                yield Verdict(self.name, turn.id, fmean(won) if won else None, None if won else UNPARSABLE, tuple(asked[turn.id]))

    def pairs(self, tree: Tree) -> Iterator[tuple[Turn, Turn]]:
        """The last turns of the episodes that are compared, each pair once, in the order of the tree.

        With fewer rivals than there are, the episodes are put in a circle by the tree's seed, and each is compared with its neighbours.
        """
        leaves = list(ended(tree))
        count = len(leaves)
        if self.rivals is None or self.rivals >= count - 1:
            yield from combinations(leaves, 2)
            return
        circle = random.Random(tree.seed).sample(range(count), count)
        reach = (self.rivals + 1) // 2
        chosen = {tuple(sorted((circle[at], circle[(at + by) % count]))) for at in range(count) for by in range(1, reach + 1)}
        for one, other in sorted(chosen):
            yield leaves[one], leaves[other]

    def _share(self, tree: Tree, one: Turn, other: Turn, answers: Answers) -> float | None:
        """What `one` gets of its comparison with `other`; None where an order was not answered or could not be read."""
        if _deeds(tree, one) == _deeds(tree, other):
            return 0.5
        orders = [labels_read(answers.get(key, ())) for key in (_key(one, other), _key(other, one))]
        if not all(orders):
            return None
        as_first, as_second = (fmean(SHARES[label] for label in labels) for labels in orders)
        return (as_first + 1.0 - as_second) / 2

    def _write(self, tree: Tree, first: tuple[Turn, ...], second: tuple[Turn, ...], keep: int | None) -> str:
        shown = [f"Episode {name}:\n\n{log(path, keep)}" for name, path in (("A", first), ("B", second))]
        return "\n\n".join([self.prompt, task(tree), *shown, FORM.request])


def _key(first: Turn, second: Turn) -> str:
    return f"{first.id}/vs/{second.id}"


def _deeds(tree: Tree, leaf: Turn) -> list[tuple[str, str | None]]:
    """What an episode did and what came of it, to tell episodes that did the same."""
    return [(turn.text, turn.observation) for turn in steps(tree, leaf.id)]
