"""Who plays and where: a seat's model with its settings, and the environment instances that it plays in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agentloop.engine.base import Engine, Generation
from agentloop.environment.base import StepResult, Task
from agentloop.sampling.admission import Admission
from agentloop.sampling.prompt import NO_PREFACE, Preface
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.render import Conversation, Renderer


class Player(Protocol):
    """An environment instance in the middle of an episode, with timeouts and typed failures around the environment itself."""

    async def reset(self, task: Task) -> str: ...

    async def step(self, action: str) -> StepResult: ...

    def system_prompt(self) -> str: ...

    def success(self, total: float) -> bool: ...

    async def actions(self) -> tuple[str, ...] | None: ...

    async def snapshot(self) -> Any | None: ...

    async def restore(self, state: Any) -> None: ...


class Pool(Protocol):
    """Where players come from; leaving the context releases the player's environment, also after a failure."""

    @property
    def limit(self) -> int:
        """Most players at once."""
        ...

    def instance(self) -> AbstractAsyncContextManager[Player]: ...


@dataclass(frozen=True, slots=True)
class Seat:
    """Who plays: everything about an episode's model that does not change from turn to turn.

    Attributes:
        engine: Generates.
        renderer: Turns text into ids once.
        settings: Decoding, limits and overflow policy.
        adapter: Versioned name of the adapter that plays, or "base".
        admission: Bounds the requests at the engine.
        preface: What precedes the first observation.
        heard: Called with every generation, for those who watch.
    """

    engine: Engine
    renderer: Renderer
    settings: SampleSettings
    adapter: str
    admission: Admission
    preface: Preface = NO_PREFACE
    heard: Callable[[Generation], None] = lambda generation: None


def open_conversation(seat: Seat, system_prompt: str) -> Conversation:
    """The seat's context at the start of an episode, before anything was observed."""
    return Conversation(
        seat.renderer,
        system_prompt,
        examples=seat.preface.examples,
        max_context=seat.engine.info.max_model_len,
        reserve=seat.settings.max_tokens,
        overflow=seat.settings.overflow,
    )
