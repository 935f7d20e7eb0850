"""First error: walks a path from its first action and stops at the first that harms (Agent-R, arXiv:2501.11425, section 3.2).

Each action is judged Good, Bad or Uncertain, given the task and the log up to and including what came back; Good and Uncertain go on, the
first Bad ends the walk. If none is Bad, the verdicts say so: all steps have one and no label is "Bad" (`agentloop.trace.verdict`). An
answer that could not be read neither ends the walk nor clears the step: its verdict is unparsable.

Paths of a tree share the steps that they have in common, so a step is judged once for all of them, and branches are walked side by side.
Of several votes the most frequent label counts; a tie is Uncertain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from agentloop.critic.answer import Form
from agentloop.critic.base import Answer, Answers, Question, majority, turns_of
from agentloop.critic.transcript import log, quoted, task
from agentloop.trace.episode import ended, succeeded
from agentloop.trace.tree import Tree, Turn, Verdict
from agentloop.trace.verdict import BAD, FIRST_ERROR, GOOD, UNCERTAIN, UNPARSABLE, steps

FORM = Form("Judgement", (GOOD, BAD, UNCERTAIN), spellings=("Judgment",))
VALUES = {GOOD: 1.0, BAD: 0.0, UNCERTAIN: 0.5}

PROMPT = (
    "An agent works on a task in an interactive environment, one action at a time. Judge its latest action by the task, by what happened "
    "before, and by what came back.\n"
    "Good: the action helps the task greatly.\n"
    "Bad: the action harms the task greatly: it leads away from the goal, or wastes or destroys what the goal needs.\n"
    "Uncertain: neither is clear."
)

Paths = Literal["failed", "contrasted", "all"]
"""Which episodes are walked: those without success; of these, only those beside a better one in their tree; or all."""


@dataclass(frozen=True, slots=True)
class FirstError:
    """The critic.

    Attributes:
        paths: See `Paths`.
        prompt: What is asked, without the log and the form of the answer.
    """

    paths: Paths = "failed"
    prompt: str = PROMPT

    @property
    def name(self) -> str:
        return FIRST_ERROR

    def questions(self, tree: Tree) -> Iterator[Question]:
        """The first step of each path."""
        for leaf in self._leaves(tree):
            yield from self._question(tree, steps(tree, leaf.id), 0)

    def after(self, tree: Tree, question: Question, votes: Sequence[Answer]) -> Iterator[Question]:
        """The next step of each path that goes through the step that was judged, unless that is Bad."""
        if _label(votes) == BAD:
            return
        for leaf in self._leaves(tree):
            path = steps(tree, leaf.id)
            for index, turn in enumerate(path):
                if turn.id == question.turn:
                    yield from self._question(tree, path, index + 1)

    def verdicts(self, tree: Tree, answers: Answers) -> Iterator[Verdict]:
        """One verdict a judged step."""
        for turn in tree.turns:
            if turn.id in answers:
                label = _label(answers[turn.id])
                yield Verdict(self.name, turn.id, VALUES.get(label), label, turns_of(answers[turn.id]))

    def _question(self, tree: Tree, path: tuple[Turn, ...], index: int) -> Iterator[Question]:
        """The question about one step of a path, if it has so many."""
        for turn in path[index : index + 1]:
            yield Question(turn.id, turn.id, FORM, partial(self._write, tree, path[: index + 1]), steps=index)

    def _leaves(self, tree: Tree) -> Iterator[Turn]:
        leaves = list(ended(tree))
        best = max((tree.episode_return(leaf.id) for leaf in leaves), default=0.0)
        for leaf in leaves:
            better = self.paths != "contrasted" or tree.episode_return(leaf.id) < best
            if self.paths == "all" or (not succeeded(leaf) and better):
                yield leaf

    def _write(self, tree: Tree, path: tuple[Turn, ...], keep: int | None) -> str:
        *before, latest = path
        so_far = log(before, keep) or "(This is the first step.)"
        asked = f"The latest action, step {len(path)}:\n{quoted(latest.text)}\nWhat came back:\n{quoted(latest.observation or '')}"
        return "\n\n".join([self.prompt, task(tree), so_far, asked, FORM.request])


def _label(votes: Sequence[Answer]) -> str:
    """The label of a judged step."""
    labels = majority(votes)
    return UNPARSABLE if not labels else labels[0] if len(labels) == 1 else UNCERTAIN
