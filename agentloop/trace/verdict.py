"""What critics said along a path, read from a tree's verdicts: for builders, searches and reports, which need no critic for it.

The labels of a step are the words of Agent-R (arXiv:2501.11425, section 3.2). A turn that several stages judged has its last verdict,
unless a stage is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from agentloop.trace.tree import Tree, Turn, Verdict

FIRST_ERROR = "first_error"
"""Name of the critic that walks a path step by step; each of its verdicts is of one step."""

GOOD, BAD, UNCERTAIN = "Good", "Bad", "Uncertain"

UNPARSABLE = "unparsable"
"""Label of a verdict without a value: the critic answered and the answer could not be read. It is counted and never guessed."""


def verdicts_by_turn(tree: Tree, critic: str, *, stage: str | None = None) -> dict[str, Verdict]:
    """The last verdict of a critic on each turn that it judged (in one judging stage, or in any), by the turn's id."""
    return {verdict.turn: verdict for verdict in tree.verdicts if verdict.critic == critic and stage in (None, verdict.stage)}


def first_error(tree: Tree, leaf_id: str, *, stage: str | None = None) -> Turn | None:
    """The first turn on the path to `leaf_id` that the first-error critic calls Bad; None where it calls none so or never looked.

    An unparsable verdict says nothing of its step. `is_walked` tells whether the critic looked at all.
    """
    verdicts = verdicts_by_turn(tree, FIRST_ERROR, stage=stage)
    return next((turn for turn in tree.path(leaf_id) if turn.id in verdicts and verdicts[turn.id].label == BAD), None)


def is_walked(tree: Tree, leaf_id: str, *, stage: str | None = None) -> bool:
    """Whether the first-error critic has been along the path to `leaf_id`: up to its first Bad step, or over every step.

    False where it never looked or its walk broke off (an engine that failed, a step that fits no context), so that "no error was found" is
    not taken for "there is none".
    """
    verdicts = verdicts_by_turn(tree, FIRST_ERROR, stage=stage)
    for turn in steps(tree, leaf_id):
        if turn.id not in verdicts:
            return False
        if verdicts[turn.id].label == BAD:
            return True
    return True


def steps(tree: Tree, leaf_id: str) -> tuple[Turn, ...]:
    """The turns on the path to `leaf_id` that acted and were answered: what a critic can judge. Summaries and critics' turns are none."""
    return tuple(turn for turn in tree.path(leaf_id) if not turn.from_critic and turn.action is not None and turn.observation is not None)


@dataclass(frozen=True, slots=True)
class VerdictCounts:
    """What a judging stage said, in numbers.

    Attributes:
        verdicts: All of them.
        labels: How many have each label, "unparsable" left out; verdicts that are numbers have none.
        unparsable: Verdicts without a value, since no answer could be read.
        mean: Mean of the values; None if there is none.
    """

    verdicts: int
    labels: dict[str, int]
    unparsable: int
    mean: float | None

    @staticmethod
    def of(trees: Iterable[Tree], stage: str, *, critic: str | None = None) -> VerdictCounts:
        """Count the verdicts of a stage, all or those of one critic (a search adds what it knows of its nodes)."""
        labels: Counter[str] = Counter()
        verdicts, valued, total = 0, 0, 0.0
        for verdict in (verdict for tree in trees for verdict in tree.verdicts):
            if verdict.stage != stage or critic not in (None, verdict.critic):
                continue
            verdicts += 1
            if verdict.value is not None:
                valued, total = valued + 1, total + verdict.value
            if verdict.label is not None:
                labels[verdict.label] += 1
        unparsable = labels.pop(UNPARSABLE, 0)
        return VerdictCounts(verdicts, dict(sorted(labels.items())), unparsable, total / valued if valued else None)

    def in_words(self) -> str:
        """One line for people."""
        if not self.verdicts:
            return "no verdicts"
        parts = [f"{self.verdicts} verdicts"]
        if self.labels:
            parts.append(", ".join(f"{label} {count}" for label, count in self.labels.items()))
        if self.mean is not None:
            parts.append(f"mean {self.mean:.3f}")
        return " · ".join([*parts, f"unparsable {self.unparsable}"])
