"""Who answers a critic's questions: a role on the engine (the actor's adapter, another one, the base), or a model behind a URL.

A respondent opens a dialogue for each vote. Every answer in it is a turn of seat "critic" and of the judge's role. On the engine it holds
the exact ids and log-probabilities, its context is started afresh (`fresh="critic"`), and a second question in the same dialogue continues
it; so a critic can be trained like any other role. Of a model behind a URL no ids are known, and its turns say so (`Turn.foreign`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from agentloop.critic.answer import Form
from agentloop.critic.transcript import SYSTEM
from agentloop.engine.base import BASE, Engine, GenerationRequest
from agentloop.engine.chat import ChatServer
from agentloop.trace.render import Conversation, Renderer
from agentloop.trace.tree import Draw, Turn


@dataclass(frozen=True, slots=True)
class Request:
    """How one answer is drawn.

    Attributes:
        turn: Id of the turn that the answer becomes.
        parent: The turn before it: the one that is judged, or the critic's own in a dialogue that goes on.
        seed: Seed of the draw.
        temperature: Sampling temperature; 0 is greedy.
        max_tokens: Most tokens of the answer.
        choices: What the answer must be one of, where the respondent can be held to it; () leaves it free.
    """

    turn: str
    parent: str
    seed: int
    temperature: float
    max_tokens: int
    choices: tuple[str, ...] = ()


class Dialogue(Protocol):
    """One vote: a question, its answer, and at most one more of each."""

    def fits(self, text: str, max_tokens: int, form: Form) -> bool:
        """Whether there is room for the question, an answer of that length, and asking for the judgement again."""
        ...

    async def ask(self, text: str, request: Request) -> Turn:
        """The answer. Raises `EngineFailure`; the same text may then be asked again."""
        ...


class Respondent(Protocol):
    """See the module."""

    def open(self) -> Dialogue:
        """A new dialogue."""
        ...


@dataclass(frozen=True, slots=True)
class EngineRespondent:
    """A role on the engine.

    Attributes:
        engine: Generates.
        renderer: Turns text into ids once.
        adapter: Versioned name of the role's adapter, or `BASE`.
        role: The role's name, kept with each turn.
        system: System prompt.
    """

    engine: Engine
    renderer: Renderer
    adapter: str = BASE
    role: str = "actor"
    system: str = SYSTEM

    def open(self) -> Dialogue:
        return _EngineDialogue(self)


class _EngineDialogue:
    """Keeps the ids of one dialogue on the engine."""

    def __init__(self, respondent: EngineRespondent) -> None:
        self._respondent = respondent
        self._conversation = Conversation(respondent.renderer, respondent.system)
        self._begun = False

    def fits(self, text: str, max_tokens: int, form: Form) -> bool:
        self._conversation.start(text, "critic")
        again = len(self._respondent.renderer.bridge((), form.again)) + longest(form)
        return self._conversation.context_length + max_tokens + again <= self._respondent.engine.info.max_model_len

    async def ask(self, text: str, request: Request) -> Turn:
        conversation, respondent = self._conversation, self._respondent
        prompt = conversation.observe(text) if self._begun else conversation.start(text, "critic")
        began = time.monotonic()
        generation = await respondent.engine.generate(
            GenerationRequest(
                prompt_ids=conversation.context_ids,
                max_tokens=request.max_tokens,
                stop_token_ids=respondent.renderer.stop_token_ids,
                temperature=request.temperature,
                seed=request.seed,
                adapter=respondent.adapter,
                choices=request.choices,
            )
        )
        turn = Turn(
            id=request.turn,
            parent=request.parent,
            extends=prompt.extends,
            fresh=prompt.fresh,
            prompt_ids=prompt.ids,
            completion_ids=generation.ids,
            logprobs=generation.logprobs,
            text=respondent.renderer.text(generation.ids),
            draw=Draw(respondent.adapter, request.temperature, kind="constrained" if request.choices else "policy", seed=request.seed),
            finish=generation.finish,
            seat="critic",
            role=respondent.role,
            seconds=(time.monotonic() - began, 0.0),
            cached_tokens=generation.cached_tokens,
        )
        conversation.add(turn)
        self._begun = True
        return turn


@dataclass(frozen=True, slots=True)
class ChatRespondent:
    """A model behind a URL; it is held to choices where its server can be (`agentloop.engine.structured`).

    Attributes:
        server: Answers.
        role: The role's name, kept with each turn.
        system: System prompt.
    """

    server: ChatServer
    role: str = "judge"
    system: str = SYSTEM

    def open(self) -> Dialogue:
        return _ChatDialogue(self)


class _ChatDialogue:
    """Keeps the messages of one dialogue with a model behind a URL."""

    def __init__(self, respondent: ChatRespondent) -> None:
        self._respondent = respondent
        self._messages = [{"role": "system", "content": respondent.system}] if respondent.system else []

    def fits(self, text: str, max_tokens: int, form: Form) -> bool:
        return True  # how long its context is, is not known; a server that refuses says "context"

    async def ask(self, text: str, request: Request) -> Turn:
        messages = [*self._messages, {"role": "user", "content": text}]
        answer = await self._respondent.server.complete(
            messages, max_tokens=request.max_tokens, temperature=request.temperature, seed=request.seed, choices=request.choices
        )
        self._messages = [*messages, {"role": "assistant", "content": answer.text}]
        return Turn(
            id=request.turn,
            parent=request.parent,
            extends=None,
            fresh="critic",
            prompt_ids=(),
            completion_ids=(),
            logprobs=None,
            text=answer.text,
            draw=Draw(self._respondent.server.name, request.temperature, kind="foreign", seed=request.seed),
            finish=answer.finish,
            seat="critic",
            role=self._respondent.role,
            info={"question": text, "prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
            | ({"constrained": True} if answer.held else {}),
            seconds=(answer.seconds, 0.0),
        )


def longest(form: Form) -> int:
    """Tokens that are enough for any of the form's lines and a stop token: no tokenizer needs more than one a byte."""
    return max(len(line.encode()) for line in form.lines) + 1
