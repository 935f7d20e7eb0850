"""What a critic that asks a model is: a pure description of its questions and of what answers mean. It asks nobody itself.

`questions` says what can be asked of a tree at once, `after` what an answer makes askable; `agentloop.critic.ask` asks, many at a time, and
reads each answer by the question's form; `verdicts` makes typed verdicts of all answers. All three are pure functions, so the result does
not depend on who was answered first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentloop.critic.answer import Form
from agentloop.trace.tree import Tree, Turn, Verdict

Write = Callable[[int | None], str]
"""Text of a question, with only the last so many steps of the log (None: with all of them)."""


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that a critic asks.

    Attributes:
        id: Unique among the critic's questions on a tree; contains the ids of the turns that it is about.
        turn: The turn that is judged, or the last of the path that is: parent of the critic's turns.
        form: How the answer has to end.
        write: Makes the text; see `Write`. A question that does not fit the judge's context is written with fewer steps.
        steps: Steps of its log.
    """

    id: str
    turn: str
    form: Form
    write: Write
    steps: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one vote came to.

    Attributes:
        label: The label that was read; None if the answer could not be read.
        turns: The critic's turns: the answer, and the second one where it was asked for its judgement again.
    """

    label: str | None
    turns: tuple[Turn, ...]


Answers = Mapping[str, Sequence[Answer]]
"""All votes of the questions that were answered, by the question's id."""


class Critic(Protocol):
    """See the module."""

    @property
    def name(self) -> str:
        """Name in verdicts, for example "first_error"."""
        ...

    def questions(self, tree: Tree) -> Iterable[Question]:
        """What can be asked at once. One that comes twice is asked once."""
        ...

    def after(self, tree: Tree, question: Question, votes: Sequence[Answer]) -> Iterable[Question]:
        """What can be asked once a question has been answered; likewise."""
        ...

    def verdicts(self, tree: Tree, answers: Answers) -> Iterable[Verdict]:
        """The verdicts, in the order of the tree's turns; `stage` is filled in by the caller."""
        ...


def labels_read(votes: Sequence[Answer]) -> list[str]:
    """The labels of the votes that could be read."""
    return [vote.label for vote in votes if vote.label is not None]


def majority(votes: Sequence[Answer]) -> tuple[str, ...]:
    """The labels with the most votes among those that could be read: one, several where it is a tie, none where none could be read.

    Self-consistency (arXiv:2203.11171): several answers are sampled, and the most frequent one counts.
    """
    counts = Counter(labels_read(votes))
    return tuple(label for label, count in counts.items() if count == max(counts.values()))


def turns_of(votes: Iterable[Answer]) -> tuple[str, ...]:
    """Ids of all the critic's turns in these votes, in order."""
    return tuple(turn.id for vote in votes for turn in vote.turns)


@dataclass(frozen=True, slots=True)
class JudgeFailure:
    """A question that was not answered, or a path that was not scored: the judge's model gave way, which is no verdict.

    Attributes:
        kind: "engine.KIND", as `EngineFailure` has them.
        message: The cause in a line.
        question: Id of the question, or of the turn that was to be scored.
        traceback: Full traceback.
    """

    kind: str
    message: str
    question: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A tree with the verdicts of one critic and the turns that led to them, and what could not be judged."""

    tree: Tree
    failures: tuple[JudgeFailure, ...] = ()


class TreeJudge(Protocol):
    """Whatever adds a critic's verdicts to a tree: `OutcomeJudge`, `ModelJudge`, `ScoringJudge`."""

    async def judge(self, tree: Tree) -> Judged:
        """The tree with its verdicts; what it had before stays."""
        ...


def mark_of(tree: Tree, stage: str) -> str:
    """What the ids of a judging's turns are marked with ("TURN/MARK.VOTE.STEP"): the stage, numbered where it judged the tree before."""
    used = {turn.id.rpartition("/")[2].rsplit(".", 2)[0] for turn in tree.turns if turn.from_critic}
    mark, number = stage, 2
    while mark in used:
        mark, number = f"{stage}~{number}", number + 1
    return mark
