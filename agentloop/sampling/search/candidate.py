"""Candidates of an expansion before they act: turns without an observation, drawn from the policy or from the admissible actions.

Admissible actions are scored by the policy: the sum of the log-probabilities of an action's tokens and of the token that ends the turn, as
the engine's `score` gives them (at temperature 1). `width` of them are drawn without replacement, in proportion to the exponential of
score / temperature (Gumbel top-k; Kool et al. 2019, arXiv:1903.06059); at temperature 0 the best are taken.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from agentloop.errors import RunFailed
from agentloop.sampling.draw import turn_of
from agentloop.sampling.failure import Broken
from agentloop.sampling.search.arena import Arena, gather
from agentloop.sampling.search.growth import Growth, child_id
from agentloop.sampling.seed import derive, request_seed
from agentloop.trace.render import Prompt
from agentloop.trace.tree import Draw, DrawKind, Spent, Turn


@dataclass(frozen=True, slots=True)
class Stem:
    """What the candidates of an expansion have in common.

    Attributes:
        node: The node that is expanded.
        parent: The turn that they follow; None for the root. It is the node, or the summary that was written there.
        prompt: What is fed since then.
        context: All that the model sees.
    """

    node: str
    parent: str | None
    prompt: Prompt
    context: tuple[int, ...]


async def sampled(arena: Arena, growth: Growth, stem: Stem, *, width: int, kind: DrawKind) -> list[Turn | Broken]:
    """`width` continuations by the policy; one if it is greedy, since the others would be the same."""
    seed = growth.node_seed(stem.node, "expand")
    count = width if arena.seat.settings.temperature else 1
    arena.counts.candidates += count

    async def candidate(index: int) -> Turn | Broken:
        drawn = await arena.draw(stem.context, request_seed(seed, index))
        if isinstance(drawn, Broken):
            return drawn
        return turn_of(arena.seat, stem.prompt, drawn, id=child_id(stem.node, index), parent=stem.parent, kind=kind)

    return await gather(candidate(index) for index in range(count))


async def admissible(arena: Arena, growth: Growth, stem: Stem, *, width: int) -> list[Turn | Broken]:
    """At most `width` of the actions that the environment admits at the node; none where it admits none.

    Raises:
        RunFailed: The environment does not list its actions.
    """
    arena.counts.candidates += 1
    actions = await arena.actions(growth, stem.node)
    if isinstance(actions, Broken):
        return [actions]
    if actions is None:
        raise RunFailed(
            f"environment {growth.origin.environment!r} does not list its admissible actions, which 'draw: admissible' needs; "
            "define actions() in it, or draw from the policy"
        )
    if not actions and not stem.node:
        return [Broken("environment.protocol", RunFailed(f"task {growth.task.id!r} admits no action at its start"))]
    arena.counts.candidates += len(actions) - 1
    found = await gather(_score(arena, stem, action) for action in dict.fromkeys(actions))
    scored = [one for one in found if not isinstance(one, Broken)]
    broken: list[Turn | Broken] = [one for one in found if isinstance(one, Broken)]
    chosen = choose(
        [one.total for one in scored], width, temperature=arena.seat.settings.temperature, seed=growth.node_seed(stem.node, "choose")
    )
    turns = [_turn(arena, stem, index, scored[position]) for index, position in enumerate(chosen)]
    if turns:
        length = len(stem.context)
        left = [one for position, one in enumerate(scored) if position not in chosen]
        turns[0] = replace(turns[0], spent=Spent(requests=len(left), prompt=sum(length + len(one.ids) for one in left)))
    return [*turns, *broken]


def choose(scores: Sequence[float], count: int, *, temperature: float, seed: int) -> list[int]:
    """Positions of `count` scores drawn without replacement in proportion to exp(score / temperature), in the order of the draw; at
    temperature 0 the highest, the first of equals."""

    def key(position: int) -> float:
        if not temperature:
            return scores[position]
        noise = random.Random(derive(seed, position)).random()
        return scores[position] / temperature - math.log(-math.log(noise or 5e-324))

    return sorted(range(len(scores)), key=lambda position: (-key(position), position))[:count]


class _Scored(NamedTuple):
    action: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        return sum(self.logprobs)


async def _score(arena: Arena, stem: Stem, action: str) -> _Scored | Broken:
    seat = arena.seat
    ids = seat.renderer.written(action)

    async def work(_: int) -> _Scored:
        async with seat.admission.engine():
            logprobs = await seat.engine.score((*stem.context, *ids), seat.adapter)
        return _Scored(action, ids, logprobs[len(stem.context) - 1 :])

    return await arena.attempt(work)


def _turn(arena: Arena, stem: Stem, index: int, scored: _Scored) -> Turn:
    return Turn(
        id=child_id(stem.node, index),
        parent=stem.parent,
        extends=stem.prompt.extends,
        fresh=stem.prompt.fresh,
        prompt_ids=stem.prompt.ids,
        completion_ids=scored.ids,
        logprobs=scored.logprobs,
        text=scored.action,
        draw=Draw(arena.seat.adapter, 1.0, kind="admissible"),
        role=arena.seat.settings.role,
    )
