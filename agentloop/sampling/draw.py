"""One request to the engine and the turn that it becomes: what the model was fed and what it produced, as they were."""

from __future__ import annotations

import time
from typing import NamedTuple

from agentloop.engine.base import Generation, GenerationRequest
from agentloop.sampling.seat import Seat
from agentloop.trace.render import Prompt
from agentloop.trace.tree import Draw, DrawKind, Turn


class Drawn(NamedTuple):
    """A generation, and the seconds at the engine without the wait for a slot."""

    generation: Generation
    seconds: float
    seed: int


async def draw(seat: Seat, context: tuple[int, ...], seed: int) -> Drawn:
    """Sample one completion of `context` under the seat's settings. Raises `EngineFailure`."""
    settings = seat.settings
    request = GenerationRequest(
        prompt_ids=context,
        max_tokens=settings.max_tokens,
        stop_token_ids=seat.renderer.stop_token_ids,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seed=seed,
        adapter=seat.adapter,
    )
    async with seat.admission.engine():
        begun = time.monotonic()
        generation = await seat.engine.generate(request)
        seconds = time.monotonic() - begun
    seat.heard(generation)
    return Drawn(generation, seconds, seed)


def turn_of(seat: Seat, prompt: Prompt, drawn: Drawn, *, id: str, parent: str | None, kind: DrawKind = "policy") -> Turn:
    """The turn that was sampled from `prompt`; it has not acted yet."""
    settings, generation = seat.settings, drawn.generation
    return Turn(
        id=id,
        parent=parent,
        extends=prompt.extends,
        fresh=prompt.fresh,
        prompt_ids=prompt.ids,
        completion_ids=generation.ids,
        logprobs=generation.logprobs,
        text=seat.renderer.text(generation.ids),
        draw=Draw(seat.adapter, settings.temperature, settings.top_p, settings.top_k, kind, drawn.seed),
        finish=generation.finish,
        role=settings.role,
        seconds=(drawn.seconds, 0.0),
        cached_tokens=generation.cached_tokens,
    )
