"""Many trees at once: one a task, each kept the moment it ends.

A finished tree is one fragment, written when it ends, and is never searched again: a stage that was killed goes on with the trees that are
missing, from their start. A tree of which nothing came because of what broke is written when the stage ends well, and searched again
otherwise. Which trees are alive together, and which of their requests come back first, changes nothing in any of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

from agentloop.engine.base import BASE, Engine, Generation
from agentloop.environment.base import Task
from agentloop.sampling.admission import Admission
from agentloop.sampling.failure import Broken, FailureLog, first_of
from agentloop.sampling.origin import Origin
from agentloop.sampling.progress import Display, Progress, Quiet
from agentloop.sampling.prompt import NO_PREFACE, Preface
from agentloop.sampling.report import SamplingReport
from agentloop.sampling.search.arena import Arena
from agentloop.sampling.search.beam import beam
from agentloop.sampling.search.best_of_n import best_of_n
from agentloop.sampling.search.estimate import Critic, CriticValue, Estimate, Rollout
from agentloop.sampling.search.growth import Growth
from agentloop.sampling.search.mcts import Search
from agentloop.sampling.search.settings import BeamSettings, BestOfNSettings, MctsSettings
from agentloop.sampling.seat import Pool, Seat
from agentloop.sampling.sink import Sink, keep
from agentloop.trace.render import ContextFull, Renderer
from agentloop.trace.tree import Tree

SearchSettings = MctsSettings | BestOfNSettings | BeamSettings
Grow = Callable[[Arena, Growth], Coroutine[Any, Any, Tree]]
"""A method: grows the tree of one task."""


async def search_trees(
    tasks: Sequence[Task],
    *,
    engine: Engine,
    pool: Pool,
    renderer: Renderer,
    sink: Sink,
    settings: SearchSettings,
    origin: Origin,
    adapter: str = BASE,
    preface: Preface = NO_PREFACE,
    display: Display | None = None,
    critic: Critic | None = None,
    rollout: str | None = None,
    rollout_role: str = "actor",
) -> SamplingReport:
    """Search every task by the method that the settings are of, and hand each tree to `sink` when it ends.

    Making the artifact is the caller's (`TreeWriter.finish`). When the call is cancelled, all environments are closed, finished trees are
    in the sink, and the cancellation goes on.

    Args:
        tasks: What is searched.
        engine: Generates, and scores admissible actions.
        pool: Environment instances; as many play at once as it allows.
        renderer: The model's renderer.
        sink: Where trees go.
        settings: The method and how.
        origin: Names and seeds the trees.
        adapter: Versioned name of the adapter that plays, or "base".
        preface: What precedes the first observation.
        display: Shows the progress.
        critic: Values leaves (mcts), candidates (best_of_n) or partial episodes (beam); None leaves that to the environment's reward.
        rollout: Versioned name of the adapter whose rollouts value the leaves of mcts, or "base"; None for no rollouts.
        rollout_role: The role that has it, kept with each turn of a rollout.

    Raises:
        RunFailed: The share of candidates that broke is above `max_failures`.
    """
    forest = _Forest(tasks, pool, sink, settings, origin, display or Quiet())
    seat = Seat(engine, renderer, settings.sample, adapter, forest.admission, preface, forest.heard)
    value: Estimate | None = None if critic is None else CriticValue(critic)
    if rollout is not None:
        value = Rollout(replace(seat, adapter=rollout, settings=replace(settings.sample, role=rollout_role)))
    return await forest.run(Arena(seat, pool, forest.log), method(settings, critic=critic, value=value))


def method(settings: SearchSettings, *, critic: Critic | None = None, value: Estimate | None = None) -> Grow:
    """The method that the settings are of."""
    match settings:
        case MctsSettings():
            return lambda arena, growth: Search(arena, growth, settings, value).run()
        case BestOfNSettings():
            return lambda arena, growth: best_of_n(arena, growth, settings, critic)
        case BeamSettings():
            return lambda arena, growth: beam(arena, growth, settings, critic)


class _Forest:
    """One call of `search_trees`: its queue of tasks, what is alive, and what was counted."""

    def __init__(self, tasks: Sequence[Task], pool: Pool, sink: Sink, settings: SearchSettings, origin: Origin, display: Display) -> None:
        self._tasks = tasks
        self._sink = sink
        self._origin = origin
        self._display = display
        self._failed: list[Tree] = []
        self._truncated: Counter[str] = Counter()
        self._fresh: Counter[str] = Counter()
        sample = settings.sample
        self.log = FailureLog(sample.max_failures, sample.few, what="candidates")
        self._progress = Progress(origin.stage, len(tasks), unit="trees", retried=self.log.retried)
        # A tree seldom has all the requests out that it may have: it waits for the last of each wave. So twice as many trees are alive.
        each = max(1, settings.requests // 2)
        self.admission = Admission(sample.concurrency, max(1, sample.alive // each), requests=each)

    def heard(self, generation: Generation) -> None:
        """Count a generation and show it."""
        progress = self._progress
        progress.turns += 1
        progress.generated += len(generation.ids)
        progress.prompt += generation.prompt_tokens
        progress.cached += generation.cached_tokens
        self._display.update(progress)

    async def run(self, arena: Arena, grow: Grow) -> SamplingReport:
        """Search what the sink does not hold yet."""
        with self._display:
            self._display.update(self._progress)
            try:
                async with asyncio.TaskGroup() as alive:
                    for task in self._waiting():
                        await self.admission.admit()
                        alive.create_task(self._run_tree(task, arena, grow))
            except BaseExceptionGroup as errors:
                raise first_of(errors) from None
            self.log.check(arena.counts.candidates, ended=True)
            for tree in self._failed:
                await keep(self._sink, tree)
        return self._report(arena)

    def _waiting(self) -> Iterator[Task]:
        finished = self._sink.finished
        for task in self._tasks:
            if (self._origin.tree_id(task.id), 0) in finished:
                self._progress.resumed += 1
            else:
                yield task

    async def _run_tree(self, task: Task, arena: Arena, grow: Grow) -> None:
        growth = Growth(task, self._origin)
        try:
            tree = await self._grow(growth, arena, grow)
            self._progress.simulations += growth.simulations
            self._progress.broken += 0 if growth.failed else len(growth.failures)
            if growth.failed:
                self._progress.failures[growth.failures[0].kind] += 1
                self._failed.append(tree)
            else:
                with self.admission.environment():  # alive until it is kept, so that a slow disk cannot pile up finished trees
                    await keep(self._sink, tree)
                self._progress.finished += 1
                self._progress.succeeded += growth.solved
                self._count(tree)
        finally:
            self.admission.leave()
        self._display.update(self._progress)
        arena.log.check(arena.counts.candidates)

    async def _grow(self, growth: Growth, arena: Arena, grow: Grow) -> Tree:
        """The tree of one task; one that has not even a root is failed."""
        arena.counts.candidates += 1
        broken = await arena.plant(growth)
        try:
            if broken is None:
                return await grow(arena, growth)
        except ContextFull as error:
            broken = Broken("context.start", error)
        growth.failed = True
        growth.add(failures=[arena.log.add(broken.failure(0, None))])
        return growth.tree()

    def _count(self, tree: Tree) -> None:
        self._truncated.update(turn.truncated for turn in tree.turns if turn.truncated is not None)
        self._fresh.update(turn.fresh for turn in tree.turns if turn.parent is not None and turn.fresh not in (None, "critic"))

    def _report(self, arena: Arena) -> SamplingReport:
        progress, counts = self._progress, arena.counts
        return SamplingReport(
            episodes=progress.total,
            resumed=progress.resumed,
            finished=progress.finished,
            succeeded=progress.succeeded,
            failures=dict(self.log.counts),
            first_failures=dict(self.log.first),
            retried=dict(self.log.retried),
            truncated=dict(self._truncated),
            fresh={str(reason): count for reason, count in self._fresh.items()},
            turns=progress.turns,
            prompt_tokens=progress.prompt,
            cached_tokens=progress.cached,
            generated_tokens=progress.generated,
            seconds=progress.seconds,
            engine_seconds=counts.engine_seconds,
            environment_seconds=counts.environment_seconds,
            most_at_engine=self.admission.most_at_engine,
            most_alive=self.admission.most_alive,
            simulations=progress.simulations,
            expansions=counts.expansions,
            duplicates=counts.duplicates,
            restored=counts.restored,
            replayed=counts.replayed,
        )
