"""Scoring: the number that a scoring model (a classifier, a reward model) gives an episode, or each of its turns.

A scorer is anything that turns chats into scores; `TransformersScorer` is one for sequence-classification models. A chat is the episode as
the agent had it: what it was told and saw first, then its turns and what came back, up to and including the action that is scored; reward
models are trained on chats that end with an answer. A model that scores writes nothing, so its turn in the tree has the score as text and
the number of tokens that it read, and no ids (`Turn.foreign`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agentloop.critic.base import Judged, JudgeFailure, mark_of
from agentloop.critic.progress import JudgeProgress
from agentloop.engine.base import EngineFailure
from agentloop.trace.episode import ended
from agentloop.trace.template import Message
from agentloop.trace.tree import Draw, Tree, Turn, Verdict
from agentloop.trace.verdict import steps

Each = Literal["episode", "turn"]
"""What is scored: episodes, or every step of them given what came before."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer says of one chat.

    Attributes:
        value: The score.
        label: The class, of a classifier; None of a reward model.
        tokens: Tokens that it read.
        left_out: Exchanges in the middle of the chat that were left out, so that it fits.
    """

    value: float
    label: str | None = None
    tokens: int = 0
    left_out: int = 0


class Scorer(Protocol):
    """A scoring model."""

    @property
    def name(self) -> str:
        """What turns record as the model."""
        ...

    async def score(self, chats: Sequence[Sequence[Message]]) -> Sequence[Score]:
        """One score a chat, in their order. Raises `EngineFailure`."""
        ...


def chat(tree: Tree, path: Sequence[Turn]) -> list[Message]:
    """The chat that ends with the last action of `path`; user and assistant take turns, beginning with the user."""
    told = f"{tree.system_prompt}\n\n" if tree.system_prompt else ""
    messages = [Message("user", told + tree.first_observation)]
    for turn in path:
        messages += [Message("assistant", turn.text), Message("user", turn.observation or "")]
    return messages[:-1] if path else messages


class ScoringJudge:
    """Judges trees with a scorer.

    Args:
        scorer: Scores.
        role: Name of its role, kept with each turn.
        each: What is scored.
        stage: Id of the stage that judges.
        progress: Where scores are counted.
    """

    def __init__(
        self, scorer: Scorer, *, role: str = "scorer", each: Each = "episode", stage: str = "judge", progress: JudgeProgress | None = None
    ) -> None:
        self._scorer = scorer
        self._role = role
        self._each = each
        self._stage = stage
        self._progress = progress or JudgeProgress(stage, 0)

    async def judge(self, tree: Tree) -> Judged:
        """The tree with a verdict on each episode's last turn, or on each step."""
        paths = list(self._paths(tree))
        if not paths:
            return Judged(tree)
        self._progress.asked += len(paths)
        try:
            scores = await self._scorer.score([chat(tree, path) for path in paths])
        except EngineFailure as failure:
            kind = f"engine.{failure.kind}"
            self._progress.failures[kind] += len(paths)
            return Judged(tree, tuple(JudgeFailure(kind, str(failure), path[-1].id, "") for path in paths))
        mark = mark_of(tree, self._stage)
        verdicts, turns = [], []
        for path, score in zip(paths, scores, strict=True):
            judged = path[-1]
            turn = scoring_turn(f"{judged.id}/{mark}.0.0", judged, score, model=self._scorer.name, role=self._role)
            turns.append(turn)
            verdicts.append(Verdict("scoring", judged.id, score.value, score.label, (turn.id,), self._stage))
            self._progress.add(turn, 0)
            self._progress.shortened += score.left_out > 0
        return Judged(tree.with_verdicts(verdicts, turns))

    def _paths(self, tree: Tree) -> Iterator[tuple[Turn, ...]]:
        """What is scored, each with all that came before it; steps that several episodes share come once."""
        seen: set[str] = set()
        for leaf in ended(tree):
            path = steps(tree, leaf.id)
            for length in range(1 if self._each == "turn" else len(path), len(path) + 1):
                if path[length - 1 : length] and path[length - 1].id not in seen:
                    seen.add(path[length - 1].id)
                    yield path[:length]


def scoring_turn(name: str, judged: Turn, score: Score, *, model: str, role: str) -> Turn:
    """What a scoring model said of `judged`, as a turn of that name."""
    return Turn(
        id=name,
        parent=judged.id,
        extends=None,
        fresh="critic",
        prompt_ids=(),
        completion_ids=(),
        logprobs=None,
        text=f"{score.value:g}",
        draw=Draw(model, 0.0, kind="foreign"),
        seat="critic",
        role=role,
        info={"prompt_tokens": score.tokens, "completion_tokens": 0},
    )
