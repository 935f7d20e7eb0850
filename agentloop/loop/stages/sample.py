"""`sample`: plays groups of episodes, or searches, with the role's current adapter and keeps the trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from agentloop.environment.base import Task
from agentloop.loop.context import Context, Outcome, StageRun
from agentloop.loop.stages.play import play, sampling_facts, success_in_short
from agentloop.loop.stages.search import search, solved_in_short
from agentloop.recipe.sample import Sample
from agentloop.run.journal import Output
from agentloop.sampling.choice import fresh_tasks
from agentloop.trace.hash import trees_hash
from agentloop.trace.store import count_trees


async def sample(run: StageRun, context: Context) -> Outcome:
    """Play, or search, `tasks` tasks of the split, other tasks every iteration."""
    stage = run.stage
    assert isinstance(stage, Sample)
    path = context.directory.artifact(run.label, "trees", stage.id)
    adapter, check = await context.serving.serve(context.lineage.versions.get(context.lineage.playing(stage.role)))

    def choose(tasks: Sequence[Task], count: int | None) -> list[Task]:
        return fresh_tasks(tasks, count, seed=context.recipe.seed, iteration=run.iteration)

    if stage.searches:
        played = await search(run, context, stage, path, adapter=adapter, choose=choose)
        note = solved_in_short(path, played.sampling)
    else:
        environment = context.environment(None)
        played = await play(run, context, stage, path, adapter=adapter, environment=environment, split=stage.split, choose=choose)
        note = f"success {success_in_short(played)}"
    output = Output(
        "trees", context.directory.relative(path), trees_hash(path), count_trees(path), {"split": stage.split, "adapter": adapter}
    )
    about = {"adapter": adapter, "note": note} | sampling_facts(played.sampling)
    if check:
        about["adapter_check"] = check
    return Outcome({stage.id: output}, tokens=asdict(played.tokens), failures=played.failures, about=about)
