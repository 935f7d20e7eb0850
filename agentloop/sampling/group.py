"""Groups of episodes, played concurrently with no barrier between turns or groups, each kept the moment it ends: all of a task from its
beginning, or all from a node of an earlier tree.

What is sampled does not depend on the order in which episodes finish: seeds belong to (run seed, stage, iteration, task, sample), a
finished episode is a fragment of its task's tree, and fragments are joined by sample. An episode that the sink already holds is not played
again, so a resumed stage ends as an uninterrupted one. Failed episodes are written when the stage ends, not before: a stage that was
stopped or killed plays them again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from agentloop.engine.base import BASE, Engine, Generation
from agentloop.environment.base import Task
from agentloop.sampling.admission import Admission
from agentloop.sampling.beginning import Beginning, from_starts, from_tasks
from agentloop.sampling.episode import Episode, Pool, Seat, play
from agentloop.sampling.failure import PERMANENT, FailureLog, first_of
from agentloop.sampling.origin import Origin
from agentloop.sampling.progress import Display, Progress, Quiet
from agentloop.sampling.prompt import NO_PREFACE, Preface
from agentloop.sampling.report import SamplingReport
from agentloop.sampling.seed import sample_seed
from agentloop.sampling.settings import SampleSettings
from agentloop.sampling.sink import Sink, keep
from agentloop.sampling.start import Start
from agentloop.trace.render import Renderer
from agentloop.trace.tree import Tree

__all__ = ["Origin", "SamplingReport", "Sink", "sample_groups"]


async def sample_groups(
    tasks: Sequence[Task],
    *,
    engine: Engine,
    pool: Pool,
    renderer: Renderer,
    sink: Sink,
    settings: SampleSettings,
    origin: Origin,
    adapter: str = BASE,
    preface: Preface = NO_PREFACE,
    display: Display | None = None,
    starts: Sequence[Start] | None = None,
) -> SamplingReport:
    """Play `settings.samples` episodes of every task and hand each to `sink` when it ends.

    With `starts`, `tasks` is not asked, and as many episodes start from each of these nodes of earlier trees. What comes of them are new
    trees, whole in themselves: they hold the ways to the nodes (`Turn.given`) and what was played from there, which alone
    `settings.max_turns` counts.

    `pool` should allow `settings.alive` instances at once; with fewer, fewer episodes are alive. Making the artifact is the caller's
    (`TreeWriter.finish`). When the call is cancelled, all environments are closed, what was finished is in the sink, and the cancellation
    goes on.

    Raises:
        RunFailed: The share of failed episodes is above `settings.max_failures`.
    """
    total = settings.samples * len(tasks if starts is None else starts)
    stage = _Stage(total, pool, sink, settings, origin, display or Quiet())
    seat = Seat(engine, renderer, settings, adapter, stage.admission, preface, stage.heard)
    if starts is None:
        return await stage.run(from_tasks(tasks, settings.samples, origin), seat)
    return await stage.run(from_starts(starts, settings.samples, origin), seat)


class _Stage:
    """One call: its queue of episodes, what is alive, and what was counted."""

    def __init__(self, total: int, pool: Pool, sink: Sink, settings: SampleSettings, origin: Origin, display: Display) -> None:
        self._pool = pool
        self._sink = sink
        self._settings = settings
        self._origin = origin
        self._display = display
        self._failures = FailureLog(settings.max_failures, settings.few)
        self._failed: list[Tree] = []
        self._truncated: Counter[str] = Counter()
        self._fresh: Counter[str] = Counter()
        self._engine_seconds = 0.0
        self._environment_seconds = 0.0
        self._started = 0
        self._progress = Progress(origin.stage, total)
        self.admission = Admission(settings.concurrency, min(settings.alive, pool.limit))
        self._kept_at_once = asyncio.Semaphore(settings.alive)

    def heard(self, generation: Generation) -> None:
        """Count a generation and show it."""
        progress = self._progress
        progress.turns += 1
        progress.generated += len(generation.ids)
        progress.prompt += generation.prompt_tokens
        progress.cached += generation.cached_tokens
        self._display.update(progress)

    async def run(self, beginnings: Iterable[Beginning], seat: Seat) -> SamplingReport:
        """Play everything that the sink does not hold yet."""
        with self._display:
            self._display.update(self._progress)
            try:
                async with asyncio.TaskGroup() as alive:
                    for beginning in self._waiting(beginnings):
                        await self.admission.admit()
                        self._started += 1
                        alive.create_task(self._run_episode(beginning, seat))
            except BaseExceptionGroup as errors:
                raise first_of(errors) from None
            self._failures.check(self._progress.total, ended=True)
            for tree in self._failed:
                await keep(self._sink, tree)
        return self._report()

    def _waiting(self, beginnings: Iterable[Beginning]) -> Iterator[Beginning]:
        """Episodes to play; those that the sink holds are counted as resumed."""
        finished = self._sink.finished
        for beginning in beginnings:
            if (beginning.tree, beginning.sample) in finished:
                self._progress.resumed += 1
                self._started += 1
            else:
                yield beginning

    async def _run_episode(self, beginning: Beginning, seat: Seat) -> None:
        try:
            episode = await self._play(beginning, seat)
            # It makes room for the next one before it is on the disk, but no more of them wait for a slow disk than may be alive.
            await self._kept_at_once.acquire()
        finally:
            self.admission.leave()
        try:
            await self._settle(self._fragment(beginning, episode), episode)
        finally:
            self._kept_at_once.release()
        self._display.update(self._progress)
        self._failures.check(self._started)

    async def _settle(self, tree: Tree, episode: Episode) -> None:
        """Keep and count an episode that has ended; one that failed is kept when the stage ends."""
        if episode.failure is not None:
            self._progress.failures[episode.failure.kind] += 1
            self._failed.append(tree)
            return
        await keep(self._sink, tree)
        self._progress.finished += 1
        self._progress.succeeded += episode.success
        self._count(episode)

    async def _play(self, beginning: Beginning, seat: Seat) -> Episode:
        """Play one episode, again where it broke by something that may pass."""
        seed = sample_seed(beginning.seed, beginning.sample)
        for attempt in range(self._settings.retries + 1):
            episode = await play(beginning.task, beginning.sample, seed, seat=seat, pool=self._pool, start=beginning.start)
            self._engine_seconds += episode.engine_seconds
            self._environment_seconds += episode.environment_seconds
            if episode.failure is None:
                break
            if attempt == self._settings.retries or episode.failure.kind in PERMANENT:
                episode.failure = self._failures.add(episode.failure)
                break
            self._failures.add_retry(episode.failure)
            self._progress.retried += 1
        return episode

    def _fragment(self, beginning: Beginning, episode: Episode) -> Tree:
        return Tree(
            id=beginning.tree,
            task=beginning.task.id,
            environment=self._origin.environment,
            split=self._origin.split,
            turns=(*episode.given, *episode.turns),
            failures=() if episode.failure is None else (episode.failure,),
            samples=(episode.sample,),
            system_prompt=episode.system_prompt,
            first_observation=episode.first_observation,
            task_data=dict(beginning.task.data),
            seed=beginning.seed,
        )

    def _count(self, episode: Episode) -> None:
        last = episode.turns[-1]
        if last.truncated is not None:
            self._truncated[last.truncated] += 1
        self._fresh.update(turn.fresh for turn in episode.turns[1:] if turn.fresh is not None)

    def _report(self) -> SamplingReport:
        progress = self._progress
        return SamplingReport(
            episodes=progress.total,
            resumed=progress.resumed,
            finished=progress.finished,
            succeeded=progress.succeeded,
            failures=dict(self._failures.counts),
            first_failures=dict(self._failures.first),
            retried=dict(self._failures.retried),
            truncated=dict(self._truncated),
            fresh=dict(self._fresh),
            turns=progress.turns,
            prompt_tokens=progress.prompt,
            cached_tokens=progress.cached,
            generated_tokens=progress.generated,
            seconds=progress.seconds,
            engine_seconds=self._engine_seconds,
            environment_seconds=self._environment_seconds,
            most_at_engine=self.admission.most_at_engine,
            most_alive=self.admission.most_alive,
        )
