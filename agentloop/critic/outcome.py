"""Outcome: the environment's own word. The value is the episode's return, the label whether it succeeded. Nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from agentloop.critic.base import Judged
from agentloop.trace.episode import ended, succeeded
from agentloop.trace.tree import Tree, Turn, Verdict

Ending = Literal["success", "failure", "cut"]
"""Solved; ended by the environment without success; cut short (its turns, its context, its budget)."""


def outcomes(tree: Tree) -> Iterator[Verdict]:
    """One verdict an episode, on its last turn."""
    for leaf in ended(tree):
        yield Verdict("outcome", leaf.id, tree.episode_return(leaf.id), ending(leaf))


def ending(leaf: Turn) -> Ending:
    """How the episode that ends in this turn ended."""
    if leaf.truncated is not None:
        return "cut"
    return "success" if succeeded(leaf) else "failure"


class OutcomeJudge:
    """Judges trees by what the environment said; asks nobody.

    Args:
        stage: Id of the stage that judges.
    """

    def __init__(self, *, stage: str = "judge") -> None:
        self._stage = stage

    async def judge(self, tree: Tree) -> Judged:
        """The tree with a verdict on each episode's last turn."""
        return Judged(tree.with_verdicts([replace(verdict, stage=self._stage) for verdict in outcomes(tree)]))
