"""One episode of one seat: observe, generate, act, until the environment is done, the turns are used up or the context is full.

What the model was fed and what it produced are recorded as they were: a turn's `prompt_ids`, joined along `extends`, are the ids of its
request, and its `completion_ids` are the engine's. An episode that breaks keeps the turns that it had and becomes a `Failure` with a kind:
"engine.KIND" where the engine gave way, the environment's own kind where that did, "context.start" where not even the first observation
fits.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agentloop.engine.base import Engine, EngineFailure, Generation, GenerationRequest
from agentloop.environment.base import StepResult, Task
from agentloop.environment.failure import EnvironmentFailure
from agentloop.sampling.admission import Admission
from agentloop.sampling.prompt import NO_PREFACE, Preface
from agentloop.sampling.seed import request_seed
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.render import ContextFull, Conversation, Prompt, Renderer
from agentloop.trace.tree import Draw, Failure, Truncation, Turn


class Player(Protocol):
    """An environment instance in the middle of an episode, with timeouts and typed failures around the environment itself."""

    async def reset(self, task: Task) -> str: ...

    async def step(self, action: str) -> StepResult: ...

    def system_prompt(self) -> str: ...

    def success(self, total: float) -> bool: ...


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

    def break_off(self, kind: str, error: BaseException) -> None:
        """Record why the episode broke, after the turns that it has."""
        self.failure = Failure(
            kind=kind,
            message=str(error) or type(error).__name__,
            sample=self.sample,
            turn=self.turns[-1].id if self.turns else None,
            traceback="".join(traceback.format_exception(error)),
        )


async def play(task: Task, sample: int, seed: int, *, seat: Seat, pool: Pool) -> Episode:
    """Play one episode of `task`. Failures of the engine and the environment are recorded in the result; anything else is raised."""
    episode = Episode(sample=sample, seed=seed)
    try:
        async with AsyncExitStack() as stack:
            with seat.admission.environment(), episode.timing_environment():
                player = await stack.enter_async_context(pool.instance())
                episode.first_observation = await player.reset(task)
            episode.system_prompt = player.system_prompt() if seat.preface.system_prompt is None else seat.preface.system_prompt
            conversation = open_conversation(seat, episode.system_prompt)
            await play_on(episode, seat, player, conversation, episode.first_observation, turns=seat.settings.max_turns)
    except EngineFailure as error:
        episode.break_off(f"engine.{error.kind}", error)
    except EnvironmentFailure as error:
        episode.break_off(error.kind, error)
    except ContextFull as error:
        episode.break_off("context.start", error)
    except asyncio.CancelledError as error:
        task_of_ours = asyncio.current_task()
        if task_of_ours is None or task_of_ours.cancelling():
            raise
        episode.break_off("episode.cancelled", error)  # by something inside; a task group would drop the episode without a word
    return episode


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


async def play_on(
    episode: Episode, seat: Seat, player: Player, conversation: Conversation, observation: str, *, total: float = 0.0, turns: int
) -> None:
    """Play from where `player` and `conversation` are until the episode ends or is cut; adds to `episode` turn by turn, so that what was
    played survives a failure.

    Args:
        observation: What is observed now.
        total: The return so far.
        turns: Most turns that may still be played; at least 1.

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
        observation = result.observation
    return episode.cut("turns")


async def _sample(episode: Episode, seat: Seat, conversation: Conversation, prompt: Prompt) -> None:
    """Sample the pending prompt and record the turn, which has not acted yet."""
    settings, number = seat.settings, len(episode.turns)
    request = GenerationRequest(
        prompt_ids=conversation.context_ids,
        max_tokens=settings.max_tokens,
        stop_token_ids=seat.renderer.stop_token_ids,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seed=request_seed(episode.seed, number),
        adapter=seat.adapter,
    )
    async with seat.admission.engine():
        begun = time.monotonic()
        generation = await seat.engine.generate(request)
        seconds = time.monotonic() - begun
    turn = Turn(
        id=f"{episode.sample}.{number}",
        parent=episode.turns[-1].id if episode.turns else episode.parent,
        extends=prompt.extends,
        fresh=prompt.fresh,
        prompt_ids=prompt.ids,
        completion_ids=generation.ids,
        logprobs=generation.logprobs,
        text=seat.renderer.text(generation.ids),
        draw=Draw(seat.adapter, settings.temperature, settings.top_p, settings.top_k, "policy", request.seed),
        finish=generation.finish,
        role=settings.role,
        seconds=(seconds, 0.0),
        cached_tokens=generation.cached_tokens,
    )
    conversation.add(turn)
    episode.turns.append(turn)
    episode.prompt_tokens += generation.prompt_tokens
    episode.cached_tokens += generation.cached_tokens
    episode.engine_seconds += seconds
    seat.heard(generation)


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
