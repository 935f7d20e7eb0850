"""A value for a search from a scoring model: what it says of the path so far, between 0 and 1.

A classifier's score is a probability already. A reward model's is any number; the value is its logistic, the probability that this path is
preferred to one of reward 0 (Bradley and Terry 1952, as reward models are trained; arXiv:2203.02155, section 3.5), so that it can stand
beside an environment's rewards in one tree and keeps their order. One chat is scored at a time: what others a batch holds would show in the
last digits, and then a search would depend on who came first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentloop.critic.base import mark_of
from agentloop.critic.progress import JudgeProgress
from agentloop.critic.scoring import Scorer, chat, scoring_turn
from agentloop.critic.value import ESTIMATE
from agentloop.trace.tree import Tree, Turn, Verdict
from agentloop.trace.verdict import steps


class ScoredValue:
    """Values turns for a search with a scoring model.

    Args:
        scorer: Scores.
        role: Name of its role, kept with each turn.
        stage: Id of the stage that searches, kept with each verdict.
        progress: Where scores are counted.
    """

    def __init__(self, scorer: Scorer, *, role: str = "scorer", stage: str = "search", progress: JudgeProgress | None = None) -> None:
        self._scorer = scorer
        self._role = role
        self._stage = stage
        self._progress = progress or JudgeProgress(stage, 0)

    async def __call__(self, tree: Tree, turn: str, *, seed: int) -> tuple[Verdict, Sequence[Turn]]:
        """A verdict on `turn`, and the scoring model's turn, which has the score itself as text. Raises `EngineFailure`."""
        self._progress.asked += 1
        candidate = () if tree[turn].observation is not None else (tree[turn],)  # has not acted yet, so it is no step
        (score,) = await self._scorer.score([chat(tree, (*steps(tree, turn), *candidate))])
        said = scoring_turn(f"{turn}/{mark_of(tree, self._stage)}.0.0", tree[turn], score, model=self._scorer.name, role=self._role)
        self._progress.add(said, 0)
        self._progress.shortened += score.left_out > 0
        value = score.value if score.label is not None else logistic(score.value)
        return Verdict(ESTIMATE, turn, value, score.label, (said.id,), self._stage), (said,)


def logistic(score: float) -> float:
    """1 / (1 + exp(-score)), which no score overflows."""
    return (1.0 + math.tanh(score / 2.0)) / 2.0
