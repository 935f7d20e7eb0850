"""What `sample` and `evaluate` share: playing tasks with one adapter into one artifact of trees."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentloop.engine.base import Engine
from agentloop.environment.base import Split, Task
from agentloop.environment.pool import EnvironmentPool
from agentloop.errors import RunFailed
from agentloop.evaluation.benchmark import Evaluation, evaluate
from agentloop.loop.context import Context, StageRun
from agentloop.loop.stages.starts import Choose, find_starts
from agentloop.recipe.sample import Play
from agentloop.recipe.settings import Environment
from agentloop.sampling.group import Origin, SamplingReport
from agentloop.sampling.progress import display
from agentloop.sampling.prompt import Preface, preface
from agentloop.sampling.settings import SampleSettings
from agentloop.sampling.start import Start

SEARCHED = ("simulations", "expansions", "duplicates", "restored", "replayed")
"""What is told of a search beside what is told of every sampling."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a stage plays with: the tasks, or in their place the nodes that episodes start from, the engine, the environment instances,
    what names and seeds the trees, and what precedes the first observation."""

    tasks: list[Task]
    starts: list[Start] | None
    engine: Engine
    pool: EnvironmentPool
    origin: Origin
    preface: Preface


@asynccontextmanager
async def preparing(
    run: StageRun, context: Context, stage: Play, environment: Environment, split: Split, choose: Choose, instances: int
) -> AsyncIterator[Prepared]:
    """What a stage plays with; the environment instances, at most `instances`, are closed at the end.

    Raises:
        RunFailed: The environment has no tasks of that split.
        Mistake: The trees to start from are of another split.
    """
    count = stage.tasks.at(run.schedule_at) if stage.tasks is not None else None
    starts = None if stage.start_from is None else find_starts(run, context, stage.start_from, split=split, count=count, choose=choose)
    engine = await context.serving.engine()
    async with context.pool(environment, instances) as pool:
        everything = await pool.tasks(split) if starts is None else ()
        if not everything and starts is None:
            raise RunFailed(f"environment {environment.id!r} has no {split} tasks, which stage {run.key} would play")
        origin = Origin(stage=stage.id, environment=environment.id, split=split, iteration=run.label, seed=context.recipe.seed)
        before = await preface(pool, context.examples(), context.recipe.prompt.system)
        yield Prepared(choose(everything, count), starts, engine, pool, origin, before)


async def play(
    run: StageRun, context: Context, stage: Play, path: Path, *, adapter: str, environment: Environment, split: Split, choose: Choose
) -> Evaluation:
    """Play what the stage asks for into `path`; a call with the same path after a kill goes on with the missing episodes.

    Raises:
        RunFailed: The environment has no tasks of that split, or too many episodes broke.
        Mistake: The trees to start from are of another split.
    """
    settings = sample_settings(stage, run.schedule_at)
    async with preparing(run, context, stage, environment, split, choose, settings.alive) as prepared:
        return await evaluate(
            prepared.tasks,
            starts=prepared.starts,
            engine=prepared.engine,
            pool=prepared.pool,
            renderer=context.renderer,
            settings=settings,
            origin=prepared.origin,
            path=path,
            adapter=adapter,
            preface=prepared.preface,
            display=display(quiet=context.quiet),
        )


def sample_settings(stage: Play, iteration: int, *, max_turns: int | None = None) -> SampleSettings:
    """The stage's settings for the sampler, schedules read at `iteration`; `max_turns` stands for the stage's own."""
    return SampleSettings(
        samples=stage.samples.at(iteration),
        temperature=stage.temperature.at(iteration),
        top_p=stage.top_p.at(iteration),
        top_k=stage.top_k.at(iteration),
        max_tokens=stage.max_tokens.at(iteration),
        max_turns=stage.max_turns.at(iteration) if max_turns is None else max_turns,
        overflow=stage.overflow,
        concurrency=stage.concurrency,
        max_failures=stage.max_failures,
        role=stage.role,
    )


def success_in_short(evaluation: Evaluation) -> str:
    """The share of successful episodes as a person reads it; says so when every episode broke, or there was none."""
    found = next((measurement for measurement in evaluation.measurements if measurement.name == "success"), None)
    if found is None:
        return "every episode broke" if evaluation.failures else "no episode was played"
    return f"{100 * found.value:.1f} % of {found.n} episodes"


def sampling_facts(*reports: SamplingReport | None) -> dict[str, Any]:
    """What the report of a run shows of a stage's samplings taken together, as JSON; {} where nothing was sampled."""
    played = [report for report in reports if report is not None]
    if not played:
        return {}

    def total(counts: Callable[[SamplingReport], dict[str, int]]) -> dict[str, int]:
        return dict(sum((Counter(counts(report)) for report in played), Counter[str]()))

    first = {kind: failure for report in reversed(played) for kind, failure in report.first_failures.items()}
    searched = {name: count for name in SEARCHED if (count := sum(getattr(report, name) for report in played))}
    return searched | {
        "resumed": sum(report.resumed for report in played),
        "truncated": total(lambda report: report.truncated),
        "fresh": total(lambda report: report.fresh),
        "retried": total(lambda report: report.retried),
        "engine_seconds": round(sum(report.engine_seconds for report in played), 2),
        "environment_seconds": round(sum(report.environment_seconds for report in played), 2),
        "first_failures": {kind: failure.traceback or failure.message for kind, failure in first.items()},
    }
