"""Asks a critic's questions of a tree, many at once, and makes verdicts of the answers.

One vote is a dialogue: the question, and the answer with free reasoning. Where that cannot be read (it was cut, or does not end as asked),
the judgement alone is asked for once more in the same context, constrained to the form's lines where the respondent can be held to them,
and read as strictly. So a judge that keeps to the form costs one plain draw a vote, and on an engine every vote is readable. Seeds belong
to (tree, stage, question, vote), so answers do not depend on what else is asked.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, replace

from agentloop.critic.base import Answer, Critic, Judged, JudgeFailure, Question, mark_of
from agentloop.critic.progress import JudgeProgress
from agentloop.critic.respondent import Dialogue, Request, Respondent, longest
from agentloop.engine.base import EngineFailure
from agentloop.errors import Mistake
from agentloop.trace.seed import derive
from agentloop.trace.tree import Tree, Turn

PERMANENT = frozenset({"adapter", "context", "memory", "port", "request"})
"""Kinds of an engine's failure that would only happen again, so that the request is not sent again."""


@dataclass(frozen=True, slots=True)
class AskSettings:
    """How a judge is asked.

    Attributes:
        temperature: Sampling temperature; 0 is greedy.
        max_tokens: Most tokens of an answer.
        votes: Times that each question is asked.
        concurrency: Most requests at the judge at once.
        retries: How often a request that failed by something that may pass is sent again.
    """

    temperature: float = 0.0
    max_tokens: int = 256
    votes: int = 1
    concurrency: int = 32
    retries: int = 1

    def __post_init__(self) -> None:
        for name in ("max_tokens", "votes", "concurrency"):
            if getattr(self, name) < 1:
                raise Mistake(f"{name} of a judge is too small", found=getattr(self, name), expected="at least 1")
        if self.temperature < 0:
            raise Mistake("temperature of a judge is negative", found=self.temperature, expected="0 (greedy) or more")
        if self.votes > 1 and self.temperature == 0:
            raise Mistake(
                "votes of a greedy judge are all the same", found=f"votes {self.votes} at temperature 0", expected="a temperature above 0"
            )


class ModelJudge:
    """Judges trees by asking a respondent a critic's questions.

    Args:
        critic: What is asked.
        respondent: Who is.
        settings: How.
        stage: Id of the stage that judges, kept with each verdict.
        progress: Where answers are counted.
        slots: Bounds the requests at the judge, where several share it; None bounds this one's own by `settings.concurrency`.
    """

    def __init__(
        self,
        critic: Critic,
        respondent: Respondent,
        settings: AskSettings = AskSettings(),
        *,
        stage: str = "judge",
        progress: JudgeProgress | None = None,
        slots: asyncio.Semaphore | None = None,
    ) -> None:
        self._critic = critic
        self._respondent = respondent
        self._settings = settings
        self._stage = stage
        self._progress = progress or JudgeProgress(stage, 0)
        self._slots = slots or asyncio.Semaphore(settings.concurrency)

    async def judge(self, tree: Tree) -> Judged:
        """The tree with its verdicts. Questions that were not answered have none, and nor have those that depend on them."""
        mark = mark_of(tree, self._stage)
        asked: dict[str, Question] = {}
        answers: dict[str, list[Answer]] = {}
        failures: dict[str, JudgeFailure] = {}
        running: dict[asyncio.Task[list[Answer] | JudgeFailure], Question] = {}

        def put(questions: Iterable[Question]) -> None:
            for question in questions:
                if question.id not in asked:
                    asked[question.id] = question
                    running[asyncio.create_task(self._votes(tree, question, mark))] = question

        try:
            put(self._critic.questions(tree))
            while running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    question, votes = running.pop(task), task.result()
                    if isinstance(votes, JudgeFailure):
                        failures[question.id] = votes
                    else:
                        answers[question.id] = votes
                        put(self._critic.after(tree, question, votes))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        verdicts = [replace(verdict, stage=self._stage) for verdict in self._critic.verdicts(tree, answers)]
        place = {turn.id: number for number, turn in enumerate(tree.turns)}
        order = sorted(asked, key=lambda key: (place[asked[key].turn], key))
        turns = [turn for key in order if key in answers for vote in answers[key] for turn in vote.turns]
        return Judged(tree.with_verdicts(verdicts, turns), tuple(failures[key] for key in order if key in failures))

    async def _votes(self, tree: Tree, question: Question, mark: str) -> list[Answer] | JudgeFailure:
        """All votes of a question, or the first failure among them."""
        self._progress.asked += 1
        votes = await asyncio.gather(*(self._vote(tree, question, mark, number) for number in range(self._settings.votes)))
        failures = [vote for vote in votes if isinstance(vote, JudgeFailure)]
        if failures:
            self._progress.failures[failures[0].kind] += 1
            return failures[0]
        return [vote for vote in votes if isinstance(vote, Answer)]

    async def _vote(self, tree: Tree, question: Question, mark: str, number: int) -> Answer | JudgeFailure:
        """One dialogue."""
        settings, progress, form = self._settings, self._progress, question.form
        dialogue = self._respondent.open()
        name = f"{question.id}/{mark}.{number}"

        def request(step: int, parent: str, max_tokens: int, choices: tuple[str, ...] = ()) -> Request:
            seed = derive(tree.seed, "critic", mark, question.id, number, step)
            return Request(f"{name}.{step}", parent, seed, settings.temperature, max_tokens, choices)

        try:
            text = self._fitted(question, dialogue)
            first = await self._ask(dialogue, text, request(0, question.turn, settings.max_tokens))
            turns, label = [first], _read(first, question)
            progress.add(first, len(first.prompt_ids))
            if label is None:
                progress.again += 1
                # A constrained answer ends by itself; one that cannot be constrained has as much room to think as before.
                limit = max(settings.max_tokens, longest(form))
                second = await self._ask(dialogue, form.again, request(1, first.id, limit, form.lines))
                turns, label = [first, second], _read(second, question)
                before = 0 if second.extends is None else len(first.prompt_ids) + len(first.completion_ids)
                progress.add(second, before + len(second.prompt_ids))
        except EngineFailure as failure:
            trace = "".join(traceback.format_exception(failure))
            return JudgeFailure(f"engine.{failure.kind}", str(failure), question.id, trace)
        if label is None:
            progress.unreadable += 1
        else:
            progress.labels[label] += 1
        return Answer(label, tuple(turns))

    def _fitted(self, question: Question, dialogue: Dialogue) -> str:
        """The question with as many of its latest steps as fit. Raises `EngineFailure` of kind "context" where it fits without any step."""

        def fits(text: str) -> bool:
            return dialogue.fits(text, self._settings.max_tokens, question.form)

        whole = question.write(None)
        if fits(whole):
            return whole
        least, most = 0, question.steps  # the largest number of steps that fits is in [least, most)
        if not fits(question.write(0)):
            message = f"question {question.id!r} and {self._settings.max_tokens} tokens of an answer do not fit the judge's context"
            raise EngineFailure("context", message)
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (middle, most) if fits(question.write(middle)) else (least, middle)
        self._progress.shortened += 1
        return question.write(least)

    async def _ask(self, dialogue: Dialogue, text: str, request: Request) -> Turn:
        """One answer, asked for again where the request failed by something that may pass."""
        for attempt in range(self._settings.retries + 1):
            try:
                async with self._slots:
                    return await dialogue.ask(text, request)
            except EngineFailure as failure:
                if attempt == self._settings.retries or failure.kind in PERMANENT:
                    raise
                self._progress.retried[f"engine.{failure.kind}"] += 1
        raise AssertionError("the last attempt returns or raises")


def _read(turn: Turn, question: Question) -> str | None:
    """The label of an answer; one that was cut may have been about to say something else."""
    return None if turn.finish == "length" else question.form.read(turn.text)
