"""Groups of episodes, played concurrently with no barrier between turns or groups, each kept the moment it ends.

What is sampled does not depend on the order in which episodes finish: seeds belong to (run seed, stage, iteration, task, sample), a
finished episode is a fragment of its task's tree, and fragments are joined by sample. An episode that the sink already holds is not played
again, so a resumed stage ends as an uninterrupted one. Failed episodes are written when the stage ends, not before: a stage that was
stopped or killed plays them again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

from agentloop.engine.base import BASE, Engine, Generation
from agentloop.environment.base import Task
from agentloop.sampling.admission import Admission
from agentloop.sampling.episode import Episode, Pool, Seat, play
from agentloop.sampling.failure import PERMANENT, FailureLog, first_of
from agentloop.sampling.origin import Origin
from agentloop.sampling.progress import Display, Progress, Quiet
from agentloop.sampling.prompt import NO_PREFACE, Preface
from agentloop.sampling.report import SamplingReport
from agentloop.sampling.seed import sample_seed
from agentloop.sampling.settings import SampleSettings
from agentloop.sampling.sink import Sink, keep
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
) -> SamplingReport:
    """Play `settings.samples` episodes of every task and hand each to `sink` when it ends.

    `pool` should allow `settings.alive` instances at once; with fewer, fewer episodes are alive. Making the artifact is the caller's
    (`TreeWriter.finish`). When the call is cancelled, all environments are closed, what was finished is in the sink, and the cancellation
    goes on.

    Raises:
        RunFailed: The share of failed episodes is above `settings.max_failures`.
    """
    stage = _Stage(tasks, pool, sink, settings, origin, display or Quiet())
    seat = Seat(engine, renderer, settings, adapter, stage.admission, preface, stage.heard)
    return await stage.run(seat)


class _Stage:
    """One call of `sample_groups`: its queue of episodes, what is alive, and what was counted."""

    def __init__(self, tasks: Sequence[Task], pool: Pool, sink: Sink, settings: SampleSettings, origin: Origin, display: Display) -> None:
        self._tasks = tasks
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
        self._progress = Progress(origin.stage, len(tasks) * settings.samples)
        self.admission = Admission(settings.concurrency, min(settings.alive, pool.limit))

    def heard(self, generation: Generation) -> None:
        """Count a generation and show it."""
        progress = self._progress
        progress.turns += 1
        progress.generated += len(generation.ids)
        progress.prompt += generation.prompt_tokens
        progress.cached += generation.cached_tokens
        self._display.update(progress)

    async def run(self, seat: Seat) -> SamplingReport:
        """Play everything that the sink does not hold yet."""
        waiting = self._waiting()
        with self._display:
            self._display.update(self._progress)
            try:
                async with asyncio.TaskGroup() as alive:
                    for task, sample in waiting:
                        await self.admission.admit()
                        self._started += 1
                        alive.create_task(self._run_episode(task, sample, seat))
            except BaseExceptionGroup as errors:
                raise first_of(errors) from None
            self._failures.check(self._progress.total, ended=True)
            for tree in self._failed:
                await keep(self._sink, tree)
        return self._report()

    def _waiting(self) -> Iterator[tuple[Task, int]]:
        """Episodes to play, samples of a task side by side since they share a prefix; those that the sink holds are counted as resumed."""
        finished = self._sink.finished
        for task in self._tasks:
            tree_id = self._origin.tree_id(task.id)
            for sample in range(self._settings.samples):
                if (tree_id, sample) in finished:
                    self._progress.resumed += 1
                    self._started += 1
                else:
                    yield task, sample

    async def _run_episode(self, task: Task, sample: int, seat: Seat) -> None:
        try:
            episode = await self._play(task, sample, seat)
            tree = self._fragment(task, episode)
            if episode.failure is not None:
                self._progress.failures[episode.failure.kind] += 1
                self._failed.append(tree)
            else:
                with self.admission.environment():  # alive until it is kept, so that a slow disk cannot pile up finished episodes
                    await keep(self._sink, tree)
                self._progress.finished += 1
                self._progress.succeeded += episode.success
                self._count(episode)
        finally:
            self.admission.leave()
        self._display.update(self._progress)
        self._failures.check(self._started)

    async def _play(self, task: Task, sample: int, seat: Seat) -> Episode:
        """Play one episode, again where it broke by something that may pass."""
        seed = sample_seed(self._origin.tree_seed(task.id), sample)
        for attempt in range(self._settings.retries + 1):
            episode = await play(task, sample, seed, seat=seat, pool=self._pool)
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

    def _fragment(self, task: Task, episode: Episode) -> Tree:
        return Tree(
            id=self._origin.tree_id(task.id),
            task=task.id,
            environment=self._origin.environment,
            split=self._origin.split,
            turns=tuple(episode.turns),
            failures=() if episode.failure is None else (episode.failure,),
            samples=(episode.sample,),
            system_prompt=episode.system_prompt,
            first_observation=episode.first_observation,
            task_data=dict(task.data),
            seed=self._origin.tree_seed(task.id),
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
