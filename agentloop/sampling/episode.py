"""One episode of one seat: observe, generate, act, until the environment is done, the turns are used up or the context is full.

What the model was fed and what it produced are recorded as they were: a turn's `prompt_ids`, joined along `extends`, are the ids of its
request, and its `completion_ids` are the engine's. An episode that breaks keeps the turns that it had and becomes a `Failure` with a kind:
"engine.KIND" where the engine gave way, the environment's own kind where that did, "context.start" where not even the first observation
fits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from agentloop.engine.base import EngineFailure
from agentloop.environment.base import StepResult, Task
from agentloop.environment.failure import EnvironmentFailure
from agentloop.sampling.draw import draw, turn_of
from agentloop.sampling.failure import Broken, kind_of
from agentloop.sampling.seat import Player, Pool, Seat, open_conversation
from agentloop.sampling.seed import request_seed
from agentloop.trace.render import ContextFull, Conversation, Prompt
from agentloop.trace.tree import Failure, Truncation, Turn

__all__ = ["Episode", "Player", "Pool", "Seat", "open_conversation", "play", "play_on"]


@dataclass
class Episode:
    """What became of one sample.

    Attributes:
        sample: Its number in the group.
        seed: Its seed.
        parent: The turn that it goes on from; None for an episode from the start.
        turns: The turns played, in order; complete also where the episode broke.
        system_prompt: Text of the system message.
        first_observation: What `reset` returned.
        failure: Why it broke; None if it did not.
        prompt_tokens: Prompt tokens of all requests.
        cached_tokens: Of these, taken from the engine's prefix cache.
        engine_seconds: Seconds at the engine, waiting for a slot not included.
        environment_seconds: Seconds in reset and step.
    """

    sample: int
    seed: int
    parent: str | None = None
    turns: list[Turn] = field(default_factory=list)
    system_prompt: str = ""
    first_observation: str = ""
    failure: Failure | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    engine_seconds: float = 0.0
    environment_seconds: float = 0.0

    @property
    def generated_tokens(self) -> int:
        """Tokens that the model produced in all turns."""
        return sum(len(turn.completion_ids) for turn in self.turns)

    @property
    def success(self) -> bool:
        """Whether the episode ended, was not cut, and the environment called it a success."""
        return self.failure is None and bool(self.turns) and bool(self.turns[-1].success)

    def amend(self, **changes: Any) -> None:
        """Change fields of the last turn."""
        self.turns[-1] = replace(self.turns[-1], **changes)

    def cut(self, truncated: Truncation) -> None:
        """The episode ends here without the environment's saying so, hence unsuccessfully."""
        self.amend(truncated=truncated, success=False)

    @contextmanager
    def timing_environment(self) -> Iterator[None]:
        """Add the seconds inside to `environment_seconds`."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.environment_seconds += time.monotonic() - begun

    def break_off(self, broken: Broken) -> None:
        """Record why the episode broke, after the turns that it has."""
        self.failure = broken.failure(self.sample, self.turns[-1].id if self.turns else self.parent)


async def play(task: Task, sample: int, seed: int, *, seat: Seat, pool: Pool, tokens: int | None = None) -> Episode:
    """Play one episode of `task`. Failures of the engine and the environment are recorded in the result; anything else is raised.

    Args:
        task: What is played.
        sample: Number of the episode.
        seed: Its seed.
        seat: Who plays.
        pool: Where.
        tokens: Generated tokens after which it is cut; None is no budget.
    """
    episode = Episode(sample=sample, seed=seed)
    try:
        async with AsyncExitStack() as stack:
            with seat.admission.environment(), episode.timing_environment():
                player = await stack.enter_async_context(pool.instance())
                episode.first_observation = await player.reset(task)
            episode.system_prompt = player.system_prompt() if seat.preface.system_prompt is None else seat.preface.system_prompt
            conversation = open_conversation(seat, episode.system_prompt)
            await play_on(episode, seat, player, conversation, episode.first_observation, turns=seat.settings.max_turns, tokens=tokens)
    except (EngineFailure, EnvironmentFailure) as error:
        episode.break_off(Broken(kind_of(error), error))
    except ContextFull as error:
        episode.break_off(Broken("context.start", error))
    except asyncio.CancelledError as error:
        task_of_ours = asyncio.current_task()
        if task_of_ours is None or task_of_ours.cancelling():
            raise
        episode.break_off(Broken("episode.cancelled", error))  # by something inside; a task group would drop the episode without a word
    return episode


async def play_on(
    episode: Episode,
    seat: Seat,
    player: Player,
    conversation: Conversation,
    observation: str,
    *,
    total: float = 0.0,
    turns: int,
    tokens: int | None = None,
) -> None:
    """Play from where `player` and `conversation` are until the episode ends or is cut; adds to `episode` turn by turn, so that what was
    played survives a failure.

    Args:
        observation: What is observed now.
        total: The return so far.
        turns: Most turns that may still be played; at least 1.
        tokens: Generated tokens of the episode after which no further turn is played; None is no budget.

    Raises:
        ContextFull: Not even one turn fits.
        EngineFailure: The engine gave way.
        EnvironmentFailure: The environment did.
    """
    for _ in range(turns):
        try:
            prompt = conversation.observe(observation)
            if prompt.asks_summary:
                await _sample(episode, seat, conversation, prompt)
                prompt = conversation.observe(observation)
        except ContextFull:
            if not episode.turns:
                raise
            return episode.cut("context")
        await _sample(episode, seat, conversation, prompt)
        result = await _step(episode, seat, player)
        total += result.reward
        if result.done:
            episode.amend(success=player.success(total))
            return None
        if result.truncated:
            return episode.cut("environment")
        if tokens is not None and episode.generated_tokens >= tokens:
            return episode.cut("budget")
        observation = result.observation
    return episode.cut("turns")


async def _sample(episode: Episode, seat: Seat, conversation: Conversation, prompt: Prompt) -> None:
    """Sample the pending prompt and record the turn, which has not acted yet."""
    number = len(episode.turns)
    drawn = await draw(seat, conversation.context_ids, request_seed(episode.seed, number))
    parent = episode.turns[-1].id if episode.turns else episode.parent
    turn = turn_of(seat, prompt, drawn, id=f"{episode.sample}.{number}", parent=parent)
    conversation.add(turn)
    episode.turns.append(turn)
    episode.prompt_tokens += drawn.generation.prompt_tokens
    episode.cached_tokens += drawn.generation.cached_tokens
    episode.engine_seconds += drawn.seconds


async def _step(episode: Episode, seat: Seat, player: Player) -> StepResult:
    """Act with the last turn's text and record what came back; a step that breaks leaves the turn without an observation."""
    turn = episode.turns[-1]
    episode.amend(action=turn.text)
    begun = time.monotonic()
    with seat.admission.environment(), episode.timing_environment():
        result = await player.step(turn.text)
    episode.amend(
        observation=result.observation,
        reward=result.reward,
        done=result.done,
        info=result.info,
        seconds=(turn.seconds[0], time.monotonic() - begun),
    )
    return result
