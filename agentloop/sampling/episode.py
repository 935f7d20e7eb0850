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
from agentloop.sampling.reach import reach
from agentloop.sampling.seat import Player, Pool, Seat, open_conversation
from agentloop.sampling.seed import request_seed
from agentloop.sampling.start import Start, take_over
from agentloop.trace.render import ContextFull, Conversation, Prompt
from agentloop.trace.tree import Draw, Failure, Truncation, Turn

__all__ = ["Episode", "Player", "Pool", "Seat", "open_conversation", "play", "play_on"]


@dataclass
class Episode:
    """What became of one sample.

    Attributes:
        sample: Its number in the group.
        seed: Its seed.
        parent: The turn that it goes on from; None for an episode from the start.
        mark: What the ids of its turns begin with, before its number.
        given: The turns up to `parent`, taken over from the tree that it goes on from.
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
    mark: str = ""
    given: list[Turn] = field(default_factory=list)
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
        return sum(len(turn.completion_ids) for turn in self.turns if not turn.authored)

    @property
    def success(self) -> bool:
        """Whether the episode ended, was not cut, and the environment called it a success."""
        return self.failure is None and bool(self.turns) and bool(self.turns[-1].success)

    @property
    def next_id(self) -> str:
        """Id of the turn that is played next."""
        return f"{self.mark}{self.sample}.{len(self.turns)}"

    @property
    def last_id(self) -> str | None:
        """Id of the last turn, or of the one that the episode goes on from."""
        return self.turns[-1].id if self.turns else self.parent

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
        self.failure = broken.failure(self.sample, self.last_id)


async def play(
    task: Task, sample: int, seed: int, *, seat: Seat, pool: Pool, tokens: int | None = None, start: Start | None = None
) -> Episode:
    """Play one episode of `task`. Failures of the engine and the environment are recorded in the result; anything else is raised.

    Args:
        task: What is played.
        sample: Number of the episode.
        seed: Its seed.
        seat: Who plays.
        pool: Where.
        tokens: Generated tokens after which it is cut; None is no budget.
        start: The node of an earlier tree that it starts from; None is the beginning.
    """
    episode = Episode(sample=sample, seed=seed)
    try:
        async with AsyncExitStack() as stack:
            with seat.admission.environment(), episode.timing_environment():
                player = await stack.enter_async_context(pool.instance())
                total = await _begin(episode, player, task, start)
            episode.system_prompt = player.system_prompt() if seat.preface.system_prompt is None else seat.preface.system_prompt
            conversation = open_conversation(seat, episode.system_prompt)
            if start is None:
                observation: str | None = episode.first_observation
            else:
                observation, total = await _go_back(episode, seat, player, conversation, start, total)
            if observation is not None:
                await play_on(episode, seat, player, conversation, observation, total=total, turns=seat.settings.max_turns, tokens=tokens)
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
        if _ended(episode, player, result, total):
            return None
        if tokens is not None and episode.generated_tokens >= tokens:
            return episode.cut("budget")
        observation = result.observation
    return episode.cut("turns")


def _ended(episode: Episode, player: Player, result: StepResult, total: float) -> bool:
    """Whether the environment ended or cut the episode with this step; records it if so."""
    if result.done:
        episode.amend(success=player.success(total))
    elif result.truncated:
        episode.cut("environment")
    return result.done or result.truncated


async def _begin(episode: Episode, player: Player, task: Task, start: Start | None) -> float:
    """Bring the environment to where the episode starts. Returns the return so far."""
    if start is None:
        episode.first_observation = await player.reset(task)
        return 0.0
    episode.first_observation, episode.parent, episode.mark = start.tree.first_observation, start.turn, start.mark
    reached = await reach(player, task, start.path, first_observation=start.tree.first_observation)
    return reached.total


async def _go_back(
    episode: Episode, seat: Seat, player: Player, conversation: Conversation, start: Start, total: float
) -> tuple[str | None, float]:
    """Bring the conversation to where the environment is, and have the revision thought said if there is to be one.

    Returns:
        What is observed then, None if the episode ended with the thought; and the return so far.

    Raises:
        ContextFull: The way, or the thought, does not fit.
    """
    episode.given, observation = take_over(conversation, seat.renderer, start)
    thought = start.thought
    if thought is None:
        return observation, total
    prompt = conversation.observe(f"{observation}\n\n{thought.question}" if thought.by == "actor" else observation)
    if prompt.asks_summary:
        raise ContextFull(conversation.context_length, conversation.context_length)
    if thought.by == "actor":
        await _sample(episode, seat, conversation, prompt)
    else:
        _record(episode, conversation, _forced(episode, seat, prompt, thought.text(episode.seed)))
    if thought.answer is not None:
        episode.amend(observation=thought.answer)
        return thought.answer, total
    result = await _step(episode, seat, player)
    total += result.reward
    return None if _ended(episode, player, result, total) else result.observation, total


async def _sample(episode: Episode, seat: Seat, conversation: Conversation, prompt: Prompt) -> None:
    """Sample the pending prompt and record the turn, which has not acted yet."""
    drawn = await draw(seat, conversation.context_ids, request_seed(episode.seed, len(episode.turns)))
    _record(episode, conversation, turn_of(seat, prompt, drawn, id=episode.next_id, parent=episode.last_id))
    episode.prompt_tokens += drawn.generation.prompt_tokens
    episode.cached_tokens += drawn.generation.cached_tokens
    episode.engine_seconds += drawn.seconds


def _record(episode: Episode, conversation: Conversation, turn: Turn) -> None:
    conversation.add(turn)
    episode.turns.append(turn)


def _forced(episode: Episode, seat: Seat, prompt: Prompt, text: str) -> Turn:
    """A turn that says a given text."""
    return Turn(
        id=episode.next_id,
        parent=episode.last_id,
        extends=prompt.extends,
        fresh=prompt.fresh,
        prompt_ids=prompt.ids,
        completion_ids=seat.renderer.written(text),
        logprobs=None,
        text=text,
        draw=Draw(seat.adapter, seat.settings.temperature, kind="forced"),
        finish="authored",
        role=seat.settings.role,
    )


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
