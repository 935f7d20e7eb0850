"""A value for a search: what a role expects of a path that has not ended, between 0 and 1.

The role scores how likely the task is to be done from here, from 1 to `scale`; the value is the score's place between the two (Tree of
Thoughts, arXiv:2305.10601, section 3, values states so; LATS, arXiv:2310.04406, section 4, uses it in tree search). `ValueCritic` is what
`agentloop.sampling.search` asks of a critic: one turn at a time, which may be a candidate that has not acted yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, median_low

from agentloop.critic.answer import Form
from agentloop.critic.ask import AskSettings, ModelJudge
from agentloop.critic.base import Answer, Answers, Question, labels_read, turns_of
from agentloop.critic.progress import JudgeProgress
from agentloop.critic.respondent import Respondent
from agentloop.critic.transcript import log, quoted, task
from agentloop.engine.base import EngineFailure
from agentloop.trace.tree import Tree, Turn, Verdict
from agentloop.trace.verdict import UNPARSABLE, steps

PROMPT = (
    "An agent is in the middle of a task in an interactive environment. Score how likely it is to succeed from here, from 1 (it will not) "
    "to {scale} (it will)."
)


@dataclass(frozen=True, slots=True)
class Value:
    """The critic, of one turn.

    Attributes:
        turn: Id of the turn that is judged, with the path to it.
        scale: Highest score; the lowest is 1.
        prompt: What is asked, without the log and the form of the answer; "{scale}" in it is the highest score.
    """

    turn: str
    scale: int = 10
    prompt: str = PROMPT

    @property
    def name(self) -> str:
        return "value"

    @property
    def form(self) -> Form:
        """What an answer ends with."""
        return Form("Score", tuple(str(score) for score in range(1, self.scale + 1)))

    def questions(self, tree: Tree) -> Iterator[Question]:
        """The one question."""
        path = steps(tree, self.turn)
        yield Question(self.turn, self.turn, self.form, partial(self._write, tree, path), steps=len(path))

    def after(self, tree: Tree, question: Question, votes: Sequence[Answer]) -> tuple[Question, ...]:
        """Nothing."""
        return ()

    def verdicts(self, tree: Tree, answers: Answers) -> Iterator[Verdict]:
        """The one verdict: the mean of the votes between 0 and 1, and the (lower) median score as label."""
        for votes in answers.values():
            scores = [int(label) for label in labels_read(votes)]
            value = (fmean(scores) - 1) / (self.scale - 1) if scores else None
            yield Verdict(self.name, self.turn, value, str(median_low(scores)) if scores else UNPARSABLE, turns_of(votes))

    def _write(self, tree: Tree, path: tuple[Turn, ...], keep: int | None) -> str:
        latest = tree[self.turn]
        about = "" if latest.observation is not None else f"The agent is about to say, and nothing came back yet:\n{quoted(latest.text)}"
        prompt = self.prompt.replace("{scale}", str(self.scale))
        return "\n\n".join(filter(None, [prompt, task(tree), log(path, keep), about, self.form.request]))


class ValueCritic:
    """Values turns for a search by asking a respondent.

    Args:
        respondent: Who is asked.
        settings: How; its `concurrency` bounds each judgement's own requests, the search bounds how many there are.
        scale: Highest score.
        stage: Id of the stage that searches, kept with each verdict.
        progress: Where answers are counted.
    """

    def __init__(
        self,
        respondent: Respondent,
        settings: AskSettings | None = None,
        *,
        scale: int = 10,
        stage: str = "search",
        progress: JudgeProgress | None = None,
    ) -> None:
        self._respondent = respondent
        self._settings = settings or AskSettings()
        self._scale = scale
        self._stage = stage
        self._progress = progress or JudgeProgress(stage, 0)

    async def __call__(self, tree: Tree, turn: str, *, seed: int) -> tuple[Verdict, Sequence[Turn]]:
        """A verdict on `turn`, and the critic's own turns. Raises `EngineFailure`."""
        critic = Value(turn, self._scale)
        judge = ModelJudge(critic, self._respondent, self._settings, stage=self._stage, progress=self._progress)
        judged = await judge.judge(replace(tree, seed=seed))
        for failure in judged.failures:
            raise EngineFailure(failure.kind.removeprefix("engine."), failure.message)
        return judged.tree.verdicts[-1], judged.tree.turns[len(tree.turns) :]
