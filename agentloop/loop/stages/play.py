"""What `sample` and `evaluate` share: playing tasks with one adapter into one artifact of trees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentloop.environment.base import Split
from agentloop.errors import RunFailed
from agentloop.evaluation.benchmark import Evaluation, evaluate
from agentloop.loop.context import Context, StageRun
from agentloop.loop.stages.starts import Choose, find_starts
from agentloop.recipe.sample import Play
from agentloop.recipe.settings import Environment
from agentloop.sampling.group import Origin, SamplingReport
from agentloop.sampling.progress import display
from agentloop.sampling.prompt import preface
from agentloop.sampling.settings import SampleSettings


async def play(
    run: StageRun, context: Context, stage: Play, path: Path, *, adapter: str, environment: Environment, split: Split, choose: Choose
) -> Evaluation:
    """Play what the stage asks for into `path`; a call with the same path after a kill goes on with the missing episodes.

    Raises:
        RunFailed: The environment has no tasks of that split, or too many episodes broke.
        Mistake: The trees to start from are of another split.
    """
    settings = sample_settings(stage, run.schedule_at)
    count = stage.tasks.at(run.schedule_at) if stage.tasks is not None else None
    starts = None if stage.start_from is None else find_starts(run, context, stage.start_from, split=split, count=count, choose=choose)
    engine = await context.serving.engine()
    async with context.pool(environment, settings.alive) as pool:
        everything = () if starts is not None else await pool.tasks(split)
        if not everything and starts is None:
            raise RunFailed(f"environment {environment.id!r} has no {split} tasks, which stage {run.key} would play")
        return await evaluate(
            choose(everything, count),
            starts=starts,
            engine=engine,
            pool=pool,
            renderer=context.renderer,
            settings=settings,
            origin=Origin(stage=stage.id, environment=environment.id, split=split, iteration=run.label, seed=context.recipe.seed),
            path=path,
            adapter=adapter,
            preface=await preface(pool, context.examples(), context.recipe.prompt.system),
            display=display(quiet=context.quiet),
        )


def sample_settings(stage: Play, iteration: int) -> SampleSettings:
    """The stage's settings for the sampler, schedules read at `iteration`."""
    return SampleSettings(
        samples=stage.samples.at(iteration),
        temperature=stage.temperature.at(iteration),
        top_p=stage.top_p.at(iteration),
        top_k=stage.top_k.at(iteration),
        max_tokens=stage.max_tokens.at(iteration),
        max_turns=stage.max_turns.at(iteration),
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
    return {
        "resumed": sum(report.resumed for report in played),
        "truncated": total(lambda report: report.truncated),
        "fresh": total(lambda report: report.fresh),
        "retried": total(lambda report: report.retried),
        "engine_seconds": round(sum(report.engine_seconds for report in played), 2),
        "environment_seconds": round(sum(report.environment_seconds for report in played), 2),
        "first_failures": {kind: failure.traceback or failure.message for kind, failure in first.items()},
    }
