"""What precedes the first observation of every episode of a stage: a system prompt and worked examples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, cast

from agentloop.environment.base import Message as Said
from agentloop.errors import Mistake
from agentloop.trace.render import Message
from agentloop.trace.template import Role


@dataclass(frozen=True, slots=True)
class Preface:
    """The same for every episode that is to be compared.

    Attributes:
        system_prompt: Stands for the environment's own; None leaves that.
        examples: Messages of worked examples, one after another.
    """

    system_prompt: str | None = None
    examples: tuple[Message, ...] = ()


NO_PREFACE = Preface()
"""The environment's own system prompt and no examples."""


class ExamplePlayer(Protocol):
    """An environment instance that can show worked examples."""

    async def examples(self, count: int) -> list[list[Said]]: ...


class ExamplePool(Protocol):
    """Where such instances come from."""

    def instance(self) -> AbstractAsyncContextManager[ExamplePlayer]: ...


async def preface(pool: ExamplePool, examples: int | Sequence[Sequence[Said]] = 0, system_prompt: str | None = None) -> Preface:
    """The preface with worked examples: so many of the environment's train split, or those given.

    Raises:
        Mistake: The environment has fewer examples.
        EnvironmentFailure: It broke while it showed them.
    """
    shown = examples if not isinstance(examples, int) else await _shown(pool, examples) if examples > 0 else ()
    messages = [Message(cast(Role, said["role"]), said["content"]) for example in shown for said in example]
    return Preface(system_prompt, tuple(messages))


async def _shown(pool: ExamplePool, examples: int) -> Sequence[Sequence[Said]]:
    """Examples of the environment's own."""
    async with pool.instance() as player:
        shown = await player.examples(examples)
    if len(shown) < examples:
        raise Mistake(
            "the environment has too few worked examples; it gives them by `examples` or `demonstration`",
            found=examples,
            expected=f"at most {len(shown)}",
        )
    return shown
