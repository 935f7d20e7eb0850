"""Beam search of one task: after each turn the `width` best partial episodes are kept, each continued by several candidates.

The best are those with the highest verdict of a critic or, without one, the highest return so far; equals are ordered by seed. Episodes
that end leave the beam and do not count towards its width. Those that were not kept end where they are (truncated "budget").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentloop.sampling.search import estimate, expand
from agentloop.sampling.search.arena import Arena, gather
from agentloop.sampling.search.budget import exhausted
from agentloop.sampling.search.growth import ROOT, Growth
from agentloop.sampling.search.settings import BeamSettings
from agentloop.sampling.seed import derive
from agentloop.trace.tree import Tree, Truncation


async def beam(arena: Arena, growth: Growth, settings: BeamSettings, critic: estimate.Critic | None = None) -> Tree:
    """Search until no partial episode is left, or a budget is used up. Each turn of the beam is one simulation of the tree.

    Raises:
        ContextFull: Not even the first observation fits.
        RunFailed: Admissible actions are asked for and the environment lists none.
    """
    kept: Sequence[str] = [ROOT]
    cut: Truncation | None = None
    while kept and cut is None:
        level = growth.simulations
        found = await gather(
            expand.expand(arena, growth, node, settings=settings.expansion, kind="beam", simulation=level) for node in kept
        )
        for one in found:
            expand.add(arena, growth, one)
        growth.simulations += 1
        going_on = [child.turn for one in found for child in one.children if not child.ended]
        cut = exhausted(growth, settings.limits)
        if cut is None:
            scores = await _scores(arena, growth, critic, going_on, level)
            kept = best(scores, settings.width, seed=growth.node_seed(str(level), "tie"))
        growth.cut_open((turn for turn in going_on if cut is not None or turn not in kept), cut or "budget")
    growth.failed = not any(turn.observation is not None for turn in growth.turns.values())
    return growth.tree()


def best(scores: Mapping[str, float], count: int, *, seed: int) -> list[str]:
    """The `count` keys of the highest scores, the highest first; equals in an order that the seed and their names decide."""
    return sorted(scores, key=lambda key: (-scores[key], derive(seed, key)))[:count]


async def _scores(arena: Arena, growth: Growth, critic: estimate.Critic | None, turns: Sequence[str], level: int) -> dict[str, float]:
    """What each partial episode is worth; one whose verdict could not be had or read comes last."""
    if critic is None:
        return {turn: growth.total(turn) for turn in turns}
    judged = await gather(estimate.judge(arena, critic, growth, growth.partial(turn), turn, simulation=level) for turn in turns)
    for one in judged:
        estimate.add(arena, growth, one)
    return {turn: float("-inf") if one.value is None else one.value for turn, one in zip(turns, judged, strict=True)}
