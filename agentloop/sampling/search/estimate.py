"""What a leaf is worth before its paths have ended: a critic's value, or the return of a rollout. Both are optional.

Without an estimate a simulation walks on, expanding node after node, until a path ends: so Agent-R does, and the walk is its own rollout.
With one, a simulation expands a single leaf, has one of the new children estimated, and backs that up, as in the textbook (Browne et al.
2012, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from agentloop.engine.base import EngineFailure
from agentloop.environment.failure import EnvironmentFailure
from agentloop.sampling.episode import Episode, play_on
from agentloop.sampling.failure import PERMANENT, Broken, kind_of
from agentloop.sampling.search.arena import Arena
from agentloop.sampling.search.growth import Growth
from agentloop.sampling.seat import Seat
from agentloop.trace.render import ContextFull
from agentloop.trace.tree import Failure, Tree, Turn, Verdict


class Critic(Protocol):
    """Judges a turn, and the path to it. It bounds its own requests to its engine."""

    async def __call__(self, tree: Tree, turn: str, *, seed: int) -> tuple[Verdict, Sequence[Turn]]:
        """A verdict on `turn` (its value None if the answer could not be read), and the critic's own turns, whose ids are new in `tree`.

        Args:
            tree: The path to the turn and the candidates beside it, as a tree. A candidate may not have acted yet.
            turn: What is judged.
            seed: For the critic's draws.

        Raises:
            EngineFailure: The critic's engine gave way.
        """
        ...


@dataclass
class Estimated:
    """What an estimate found.

    Attributes:
        value: What is backed up; None where nothing can be said.
        turns: New turns, parents before their children.
        verdicts: What a critic said.
        failures: What broke.
        generated: Tokens that the actor generated; a critic's are judged tokens.
    """

    value: float | None = None
    turns: list[Turn] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    generated: int = 0


class Estimate(Protocol):
    """Finds what a leaf is worth; reads the tree and changes nothing."""

    async def __call__(self, arena: Arena, growth: Growth, node: str, *, simulation: int) -> Estimated: ...


def add(arena: Arena, growth: Growth, estimated: Estimated) -> None:
    """Add to the tree what an estimate found, and count it. Raises `RunFailed` where too much of the stage broke."""
    growth.add(estimated.turns, estimated.verdicts, [arena.log.add(failure) for failure in estimated.failures])
    growth.generated += estimated.generated
    arena.log.check(arena.counts.candidates)


@dataclass(frozen=True, slots=True)
class CriticValue:
    """The value is the critic's."""

    critic: Critic

    async def __call__(self, arena: Arena, growth: Growth, node: str, *, simulation: int) -> Estimated:
        return await judge(arena, self.critic, growth, growth.partial(node), node, simulation=simulation)


async def judge(arena: Arena, critic: Critic, growth: Growth, tree: Tree, turn: str, *, simulation: int) -> Estimated:
    """A critic's verdict on a turn of `tree`."""

    async def work(_: int) -> Estimated:
        verdict, turns = await critic(tree, turn, seed=growth.node_seed(turn, "critic"))
        return Estimated(verdict.value, list(turns), [verdict])

    arena.counts.candidates += 1
    found = await arena.attempt(work)
    return Estimated(failures=[found.failure(simulation, turn)]) if isinstance(found, Broken) else found


@dataclass(frozen=True, slots=True)
class Rollout:
    """The value is the return of one episode that `seat` plays on from the leaf. Its turns are kept: plain draws, and no nodes of the
    search."""

    seat: Seat

    async def __call__(self, arena: Arena, growth: Growth, node: str, *, simulation: int) -> Estimated:
        seed = growth.node_seed(node, "rollout")

        async def work(number: int) -> Episode:
            episode = Episode(sample=-1, seed=seed, parent=node)  # its ids meet no node's, and are renamed
            conversation, observation = growth.conversation(self.seat, node)
            turns = self.seat.settings.max_turns - growth.depth(node)
            async with arena.reached(growth, node, snapshots=not number) as (player, total):
                try:
                    await play_on(episode, self.seat, player, conversation, observation, total=total, turns=turns)
                except (EngineFailure, EnvironmentFailure) as error:
                    if number < self.seat.settings.retries and kind_of(error) not in PERMANENT:
                        raise
                    episode.break_off(Broken(kind_of(error), error))  # the last attempt's turns are kept
                except ContextFull:
                    pass  # nothing follows the leaf, whose own return is its value
            return episode

        arena.counts.candidates += 1
        episode = await arena.attempt(work)
        if isinstance(episode, Broken):
            return Estimated(failures=[episode.failure(simulation, node)])
        generated = episode.generated_tokens
        turns, failure = _renamed(episode, node, simulation)
        if failure is not None:
            return Estimated(turns=turns, failures=[failure], generated=generated)
        return Estimated(max(0.0, growth.total(node) + sum(turn.reward for turn in turns)), turns, generated=generated)


def _renamed(episode: Episode, node: str, simulation: int) -> tuple[list[Turn], Failure | None]:
    """The turns of a rollout under ids of their own: "2.0~0", "2.0~1", … after node "2.0"."""
    names = {turn.id: f"{node}~{number}" for number, turn in enumerate(episode.turns)} | {node: node}
    turns = [
        replace(
            turn,
            id=names[turn.id],
            parent=names.get(turn.parent or "", turn.parent),
            extends=names.get(turn.extends or "", turn.extends),
        )
        for turn in episode.turns
    ]
    failure = episode.failure
    if failure is not None:
        failure = replace(failure, sample=simulation, turn=names.get(failure.turn or "", failure.turn))
    return turns, failure
