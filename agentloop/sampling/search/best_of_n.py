"""Best-of-n of one task: in each turn `width` candidates, of which a critic's best is played; without a critic, `width` whole episodes.

With a critic the candidates that were not played stay in the tree, without a step and with their verdicts (truncated "budget"). Without one
the environment's reward at the end says which episode was best, the tree is that of a group, and its draws are the policy's own.

Under a budget the episodes are played one after another, so that what is played does not depend on who is quick.
"""

from __future__ import annotations

from dataclasses import replace

from agentloop.sampling.episode import Episode, play
from agentloop.sampling.failure import PERMANENT
from agentloop.sampling.search import estimate, expand
from agentloop.sampling.search.arena import Arena, gather
from agentloop.sampling.search.beam import best
from agentloop.sampling.search.budget import exhausted
from agentloop.sampling.search.candidate import sampled
from agentloop.sampling.search.growth import ROOT, Growth
from agentloop.sampling.search.settings import BestOfNSettings, Expansion
from agentloop.sampling.seed import sample_seed
from agentloop.trace.tree import Tree, Truncation, Turn

_STEP = Expansion(disasters=False)


async def best_of_n(arena: Arena, growth: Growth, settings: BestOfNSettings, critic: estimate.Critic | None = None) -> Tree:
    """Play until the episode, or all of them, have ended, or a budget is used up.

    Raises:
        ContextFull: Not even the first observation fits.
    """
    if critic is None:
        await _episodes(arena, growth, settings)
    else:
        await _one_episode(arena, growth, settings, critic)
    return growth.tree()


async def _episodes(arena: Arena, growth: Growth, settings: BestOfNSettings) -> None:
    limits = settings.limits
    at_once = 1 if limits.any else settings.width
    for first in range(0, settings.width, at_once):
        left = None if limits.tokens is None else limits.tokens - growth.generated
        for episode in await gather(_episode(arena, growth, number, left) for number in range(first, first + at_once)):
            failures = [] if episode.failure is None else [arena.log.add(episode.failure)]
            growth.add(episode.turns, failures=failures)
            growth.generated += episode.generated_tokens
            growth.simulations += 1
            arena.log.check(arena.counts.candidates)
        if exhausted(growth, limits):
            break
    growth.failed = len(growth.failures) == growth.simulations


async def _episode(arena: Arena, growth: Growth, number: int, tokens: int | None) -> Episode:
    """One episode, again from its start where it broke by something that may pass."""
    arena.counts.candidates += 1
    retries = arena.seat.settings.retries
    for attempt in range(retries + 1):
        episode = await play(growth.task, number, sample_seed(growth.seed, number), seat=arena.seat, pool=arena.pool, tokens=tokens)
        arena.counts.engine_seconds += episode.engine_seconds
        arena.counts.environment_seconds += episode.environment_seconds
        if episode.failure is None or episode.failure.kind in PERMANENT or attempt == retries:
            break
        arena.log.add_retry(episode.failure)
    return episode


async def _one_episode(arena: Arena, growth: Growth, settings: BestOfNSettings, critic: estimate.Critic) -> None:
    node, cut = ROOT, None
    growth.simulations = 1
    for _ in range(arena.seat.settings.max_turns):
        found = await _turn(arena, growth, node, settings.width, critic)
        expand.add(arena, growth, found)
        if not found.children:
            growth.failed = found.closed is None
            return
        node = found.children[0].turn
        if found.children[0].ended:
            return
        cut = exhausted(growth, settings.limits)
        if cut is not None:
            growth.cut(node, cut)
            return


async def _turn(arena: Arena, growth: Growth, node: str, width: int, critic: estimate.Critic) -> expand.Found:
    """One turn: its candidates, judged, and the best of them played."""
    found = expand.Found(node)
    stem = await expand.stem_of(arena, growth, found, 0)
    if stem is None:
        return found
    drawn = await sampled(arena, growth, stem, width=width, kind="best_of_n")
    found.failures += [one.failure(0, stem.parent) for one in drawn if not isinstance(one, Turn)]
    turns = [one for one in drawn if isinstance(one, Turn)]
    found.generated += sum(len(turn.completion_ids) for turn in turns)
    candidates = {turn.id: turn for turn in expand.merge_equal_actions(turns, len(stem.context))}
    if not candidates:
        return found
    found.duplicates = len(turns) - len(candidates)
    tree = growth.partial(node, [*found.turns, *candidates.values()])
    judged = await gather(estimate.judge(arena, critic, growth, tree, turn, simulation=0) for turn in candidates)
    scores = {turn: float("-inf") if one.value is None else one.value for turn, one in zip(candidates, judged, strict=True)}
    chosen = best(scores, 1, seed=growth.node_seed(node, "tie"))[0]
    stepped = await arena.step(growth, node, candidates[chosen].text, chosen)
    depth = growth.depth(node) + 1
    played = expand.Tried(replace(candidates.pop(chosen), action=tree[chosen].text), stepped)
    expand.record(found, played, _STEP, last=depth >= arena.seat.settings.max_turns, simulation=0)
    cut: Truncation = "budget"
    found.turns += [replace(turn, truncated=cut, success=False) for turn in candidates.values()]
    for one in judged:
        found.turns += one.turns
        found.verdicts += one.verdicts
        found.failures += one.failures
    return found
