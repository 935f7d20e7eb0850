"""Rubric: a score from 1 to `scale` for each episode, against a rubric in words.

Of several votes the value is the mean and the label the (lower) median, which is a score that was really given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median_low

from agentloop.critic.answer import Form
from agentloop.critic.base import Answer, Answers, Question, labels_read, turns_of
from agentloop.critic.transcript import log, task
from agentloop.trace.episode import ended
from agentloop.trace.tree import Tree, Turn, Verdict
from agentloop.trace.verdict import UNPARSABLE, steps

PROMPT = "Score an agent's episode against a rubric, from 1 (not met at all) to {scale} (met fully)."


@dataclass(frozen=True, slots=True)
class Rubric:
    """The critic.

    Attributes:
        rubric: What is scored, in words.
        scale: Highest score; the lowest is 1.
        prompt: What is asked, without the rubric, the log and the form of the answer; "{scale}" in it is the highest score.
    """

    rubric: str
    scale: int = 5
    prompt: str = PROMPT

    @property
    def name(self) -> str:
        return "rubric"

    @property
    def form(self) -> Form:
        """What an answer ends with."""
        return Form("Score", tuple(str(score) for score in range(1, self.scale + 1)))

    def questions(self, tree: Tree) -> Iterator[Question]:
        """One question an episode."""
        for leaf in ended(tree):
            path = steps(tree, leaf.id)
            yield Question(leaf.id, leaf.id, self.form, partial(self._write, tree, path), steps=len(path))

    def after(self, tree: Tree, question: Question, votes: Sequence[Answer]) -> tuple[Question, ...]:
        """Nothing."""
        return ()

    def verdicts(self, tree: Tree, answers: Answers) -> Iterator[Verdict]:
        """One verdict an episode, on its last turn."""
        for turn in tree.turns:
            if turn.id in answers:
                votes = answers[turn.id]
                scores = [int(label) for label in labels_read(votes)]
                value = fmean(scores) if scores else None
                label = str(median_low(scores)) if scores else UNPARSABLE
                yield Verdict(self.name, turn.id, value, label, turns_of(votes))

    def _write(self, tree: Tree, path: tuple[Turn, ...], keep: int | None) -> str:
        prompt = self.prompt.replace("{scale}", str(self.scale))
        return "\n\n".join([prompt, f"The rubric: {self.rubric}", task(tree), log(path, keep), self.form.request])
