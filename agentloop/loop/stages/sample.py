"""`sample`: plays groups of episodes with the role's current adapter and keeps them as trees."""

from __future__ import annotations

from dataclasses import asdict

from agentloop.loop.context import Context, Outcome, StageRun
from agentloop.loop.stages.play import play, sampling_facts, success_in_short
from agentloop.recipe.sample import GroupSample
from agentloop.run.journal import Output
from agentloop.sampling.choice import fresh_tasks
from agentloop.trace.hash import trees_hash
from agentloop.trace.store import count_trees


async def sample(run: StageRun, context: Context) -> Outcome:
    """Play `samples` episodes of `tasks` tasks of the split, other tasks every iteration."""
    stage = run.stage
    assert isinstance(stage, GroupSample)
    path = context.directory.artifact(run.label, "trees", stage.id)
    adapter, check = await context.serving.serve(context.lineage.versions.get(context.lineage.playing(stage.role)))
    played = await play(
        run,
        context,
        stage,
        path,
        adapter=adapter,
        environment=context.environment(None),
        split=stage.split,
        choose=lambda tasks, count: fresh_tasks(tasks, count, seed=context.recipe.seed, iteration=run.iteration),
    )
    output = Output(
        "trees", context.directory.relative(path), trees_hash(path), count_trees(path), {"split": stage.split, "adapter": adapter}
    )
    about = {"adapter": adapter, "note": f"success {success_in_short(played)}"} | sampling_facts(played.sampling)
    if check:
        about["adapter_check"] = check
    return Outcome({stage.id: output}, tokens=asdict(played.tokens), failures=played.failures, about=about)
