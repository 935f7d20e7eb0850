"""What a recipe says of a policy-gradient training, as the training takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentloop.engine.base import BASE
from agentloop.loop import stores
from agentloop.loop.context import Context, StageRun
from agentloop.recipe.train import PolicyTrain


def policy_options(stage: PolicyTrain, run: StageRun, context: Context, stored: list[Path]) -> dict[str, Any]:
    """The options of the job, schedules read at the stage's iteration.

    Args:
        stage: The stage.
        run: Where in the plan it stands.
        context: The run.
        stored: Snapshots of the stores that it reads.
    """
    at = run.schedule_at
    start = context.lineage.start_of(stage.role, stage.start)
    options: dict[str, Any] = {
        "loss": stage.loss,
        "clip_low": stage.clip_low.at(at),
        "clip_high": stage.clip_high.at(at),
        "kl": stage.kl.at(at),
        "aggregate": stage.aggregate,
        "length": stage.length,
        "correction": None if stage.correction is None else stage.correction.at(at),
        "covariance": stage.covariance.model_dump(),
        "max_staleness": stage.max_staleness,
        "version": BASE if start is None else start.name,
    }
    if stored:
        options["replay"] = stage.replay.model_dump() | {
            "rows": [str(path) for path in stored],
            "group_means": _group_means(run, context),
            "weight": stage.imitation.at(at),
        }
    return options


def _group_means(run: StageRun, context: Context) -> list[list[float]]:
    """Mean returns of the groups of each earlier iteration that added to the stage's stores, the oldest first; this iteration's come in
    when it is over.
    """
    names = stores.in_stores(run.stage.inputs, context.recipe)
    added = [one for name in names for one in stores.ever_added_to(name, run, context.recipe, context.directory)]
    means: dict[int, list[float]] = {}
    for one in added:
        if one.iteration < run.iteration:
            means.setdefault(one.iteration, []).extend(one.entry.about.get("group_means", ()))
    return [means[iteration] for iteration in sorted(means)]
