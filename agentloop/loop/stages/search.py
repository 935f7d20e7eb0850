"""How a `sample` stage grows trees: what the recipe says of a search, and the search itself into one artifact."""

from __future__ import annotations

from pathlib import Path

from agentloop.evaluation.benchmark import Evaluation, evaluate_trees
from agentloop.loop.context import Context, StageRun
from agentloop.loop.stages.play import preparing, sample_settings
from agentloop.loop.stages.starts import Choose
from agentloop.recipe.sample import Beam, BestOfN, Sample, TreeSearch
from agentloop.sampling.progress import display
from agentloop.sampling.report import SamplingReport
from agentloop.sampling.search.forest import SearchSettings, search_trees
from agentloop.sampling.search.settings import BeamSettings, BestOfNSettings, Expansion, Limits, MctsSettings
from agentloop.trace.store import TreeWriter, read_columns


async def search(run: StageRun, context: Context, stage: Sample, path: Path, *, adapter: str, choose: Choose) -> Evaluation:
    """Grow a tree for each task into `path`; a call with the same path after a kill goes on with the missing trees.

    Raises:
        RunFailed: The environment has no tasks of that split, or too many candidates broke.
    """
    settings = search_settings(stage, run.schedule_at)
    rollout = await _rollout(context, stage)
    environment = context.environment(None)
    instances = settings.sample.concurrency  # one is held for a step only
    async with preparing(run, context, stage, environment, stage.split, choose, instances) as prepared:
        with TreeWriter(path) as writer:
            report = await search_trees(
                prepared.tasks,
                engine=prepared.engine,
                pool=prepared.pool,
                renderer=context.renderer,
                sink=writer,
                settings=settings,
                origin=prepared.origin,
                adapter=adapter,
                preface=prepared.preface,
                display=display(quiet=context.quiet),
                rollout=rollout,
            )
            writer.finish([prepared.origin.tree_id(task.id) for task in prepared.tasks])
    return evaluate_trees(path, stage=stage.id, iteration=run.label, sampling=report)


def search_settings(stage: Sample, iteration: int) -> SearchSettings:
    """The stage's settings for its method, schedules read at `iteration`. A group with limits is best-of-n without a critic."""
    sample = sample_settings(stage, iteration)
    limits = Limits(
        stage.tokens.at(iteration) if stage.tokens is not None else None,
        stage.seconds.at(iteration) if stage.seconds is not None else None,
        stage.until_win,
    )
    match stage:
        case TreeSearch():
            return MctsSettings(
                sample=sample_settings(stage, iteration, max_turns=stage.depth.at(iteration)),
                expansion=Expansion(stage.width.at(iteration), stage.draw, stage.deduplicate, stage.disasters, stage.revisits),
                limits=limits,
                simulations=stage.simulations.at(iteration),
                exploration=stage.exploration.at(iteration),
                leaves=stage.leaves,
            )
        case Beam():
            expansion = Expansion(stage.branch.at(iteration), stage.draw, stage.deduplicate, disasters=False)
            return BeamSettings(sample, stage.width.at(iteration), expansion, limits)
        case BestOfN():
            return BestOfNSettings(sample, stage.width.at(iteration), limits)
        case _:
            return BestOfNSettings(sample, stage.samples.at(iteration), limits)


def solved_in_short(path: Path, report: SamplingReport | None) -> str:
    """How many trees have a success, as a person reads it, and how many walks that took in this attempt."""
    wins = [any(turn["success"] for turn in row["turns"] or ()) for row in read_columns(path, ("turns.success",))]
    text = f"solved {sum(wins)} of {len(wins)} tasks"
    return f"{text} in {report.simulations:,} simulations" if report is not None and report.simulations else text


async def _rollout(context: Context, stage: Sample) -> str | None:
    """Name of the adapter that plays rollouts, which is made ready; None if there are none."""
    if not isinstance(stage, TreeSearch) or stage.rollout is None:
        return None
    return (await context.serving.serve(context.lineage.versions.get(context.lineage.playing(stage.rollout))))[0]
