"""Goes through a recipe's stages in a run directory, once each, however often it is killed and started again.

The order of stages follows from the recipe; what is done follows from the journal. A stage that has a "finished" line under the same
fingerprint (its settings, the seed and the content
hashes of what it reads) is passed over. After each stage `metrics.jsonl` and the report are derived anew, so that a run can be watched
while it goes on.
"""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from agentloop.errors import AgentloopError, Mistake, RunFailed
from agentloop.loop import references, retention, stores
from agentloop.loop.context import FINAL, Context, Outcome, StageRun
from agentloop.loop.stages import STAGES
from agentloop.loop.updates import updates_before
from agentloop.recipe.judge import Judge
from agentloop.recipe.moment import at_update
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.sample import critic_of
from agentloop.recipe.stage import Stage, When
from agentloop.recipe.train import PolicyTrain
from agentloop.run.artifact import disk_full, means_full
from agentloop.run.journal import Entry
from agentloop.trace.hash import content_hash


class Observer:
    """Is told what the runner does; this one says nothing."""

    def stage_started(self, run: StageRun, iterations: int) -> None:
        """A stage begins (again)."""

    def stage_ended(self, run: StageRun, entry: Entry) -> None:
        """A stage is finished, or was before."""

    def kept(self, runs: list[StageRun]) -> None:
        """These stages were finished by an earlier process."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended: how many stages ran now, and how many were finished before."""

    ran: int
    kept: int


def stage_runs(recipe: Recipe) -> Iterator[StageRun]:
    """Every stage at every iteration, in order, then the final ones."""
    for iteration in range(recipe.iterations):
        for stage in recipe.stages:
            yield StageRun(stage, iteration, f"{iteration:03d}")
    for stage in recipe.final:
        yield StageRun(stage, recipe.iterations, FINAL)


async def run_recipe(recipe: Recipe, context: Context, observer: Observer | None = None) -> RunResult:
    """Run what is not finished yet.

    Raises:
        AgentloopError: A stage failed; the journal says so, and what was finished is kept.
        asyncio.CancelledError: It was interrupted; likewise.
    """
    watcher = observer or Observer()
    plan = list(stage_runs(recipe))
    _check_keys(recipe)
    _begin(recipe, context)
    kept = [run for run in plan if _is_finished(run, context)]
    if kept:
        watcher.kept(kept)
    ran = 0
    try:
        for run in plan:
            if _is_finished(run, context):
                continue
            watcher.stage_started(run, recipe.iterations)
            watcher.stage_ended(run, await _run_stage(run, context))
            ran += 1
    finally:
        # Leaving without a word would leave a server behind; a second Ctrl-C must not stop its end.
        await asyncio.shield(context.close())
    adapters = retention.counted(context.lineage, context.directory)
    context.directory.journal.append(Entry("run", "", about={"state": "finished", "adapters": adapters}))
    return RunResult(ran, len(kept))


def fingerprint(run: StageRun, context: Context) -> str:
    """What a stage's outcome depends on: its settings at this iteration, the recipe's common parts, and the content of what it reads."""
    recipe = context.recipe
    return content_hash(
        {
            "kind": run.stage.kind,
            "stage": run.stage.model_dump(mode="json", by_alias=True),
            "iteration": run.label,
            "seed": recipe.seed,
            "model": recipe.model,
            "environments": {name: entry.model_dump(mode="json") for name, entry in recipe.all_environments().items()},
            "prompt": context.prompt(),
            "inputs": references.hashes(run.stage.inputs, run, context.directory) + stores.hashes(run, recipe, context.directory),
        }
        | _judge_of(run, recipe)
    )


def _judge_of(run: StageRun, recipe: Recipe) -> dict[str, Any]:
    """What a judging depends on beyond that, where another model judges, or one of another prompt; an adapter follows from what was
    trained.
    """
    name = _judging_role(run.stage)
    if name is None or (recipe.role(name).kind not in ("url", "scoring") and recipe.role(name).prompt is None):
        return {}
    return {"judge": recipe.role(name).model_dump(mode="json")}


def _judging_role(stage: Stage) -> str | None:
    """The role that judges in a stage, or that values what its search finds; None where nobody does."""
    if isinstance(stage, Judge):
        return stage.role
    critic = critic_of(stage)
    return None if critic is None else critic.role


def _begin(recipe: Recipe, context: Context) -> None:
    environments = ", ".join(entry.id for entry in recipe.all_environments().values())
    retention.resume(context.lineage, context.directory)
    about = {
        "name": recipe.name,
        "model": context.model.name,
        "model_source": context.model.source,
        "environment": environments,
        "adapters": retention.counted(context.lineage, context.directory),
        "state": "running",
    }
    context.directory.journal.append(Entry("run", "", about=about | context.versions()))
    context.directory.write_metrics()


def _check_keys(recipe: Recipe) -> None:
    """Keys of models behind URLs must be there before hours have gone by. Raises `Mistake`."""
    for stage in recipe.all_stages():
        name = _judging_role(stage)
        if name is not None and (key := recipe.role(name).key) is not None and not os.environ.get(key):
            raise Mistake(f"the environment variable {key} is not set", expected=f"the key of role {name!r} in it")


def _is_finished(run: StageRun, context: Context) -> bool:
    entry = context.directory.journal.finished(run.key)
    if entry is None:
        return False
    if entry.fingerprint != fingerprint(run, context):
        raise Mistake(
            f"stage {run.key} was finished with other settings or from other files than it has now",
            file=str(context.directory.path),
            expected="the recipe, environment and files that the run began with, or another --out",
        )
    return True


async def _run_stage(run: StageRun, context: Context) -> Entry:
    """Run one stage and journal how it ended. Returns the "finished" entry."""
    journal = context.directory.journal
    mark = fingerprint(run, context)
    journal.append(Entry("started", run.key, fingerprint=mark, about={"kind": run.stage.kind}))
    began = time.monotonic()

    def ended(event: str, message: str = "", outcome: Outcome | None = None) -> Entry:
        made = outcome or Outcome()
        about: dict[str, Any] = {"kind": run.stage.kind, "waits": context.take_waits(), "resent": context.take_resent()} | made.about
        entry = Entry(
            event,  # type: ignore[arg-type]  # one of the literals below
            run.key,
            fingerprint=mark,
            outputs=made.outputs,
            measurements=tuple(made.measurements),
            tokens={kind: count for kind, count in made.tokens.items() if count},
            failures=made.failures,
            message=message,
            about=about,
            seconds=round(time.monotonic() - began, 3),
        )
        journal.append(entry)
        return entry

    try:
        outcome = await _outcome(run, context)
    except asyncio.CancelledError:
        ended("interrupted")
        raise
    except AgentloopError as error:
        ended("failed", str(error))
        raise
    except Exception as error:
        if means_full(error):  # met where nothing translates it: in an environment, a log, a library's own files
            failure = disk_full(context.directory.path)
            ended("failed", str(failure))
            raise failure from error
        ended("failed", f"{type(error).__name__}: {error}")
        log = context.directory.logs / f"{run.key.replace('/', '-')}.traceback.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
        raise RunFailed(f"stage {run.key} broke: {type(error).__name__}: {error}; the traceback is in {log}") from error
    entry = ended("finished", outcome=outcome)
    context.lineage.apply(entry, context.directory.path)
    await context.retire_adapters()
    context.directory.write_metrics()
    return entry


async def _outcome(run: StageRun, context: Context) -> Outcome:
    if run.stage.when is not None:
        value = _condition_value(run, run.stage, run.stage.when, context)
        if not run.stage.when.holds(value):
            return Outcome(about={"note": f"left out: {run.stage.when.metric} is {value:.3f}", "left_out": True})
    stored = [name for name in stores.in_stores(run.stage.inputs, context.recipe) if _holds(name, run, context)]
    if not stored and references.nothing_made(run.stage.inputs, run, context.directory):
        names = ", ".join(str(reference) for reference in run.stage.inputs)
        return Outcome(about={"note": f"left out: there is no {names}", "left_out": True})
    return await STAGES[run.stage.kind](_at_its_update(run, context), context)


def _at_its_update(run: StageRun, context: Context) -> StageRun:
    """The stage with its schedules `by: update` as they are when it begins; one that samples for itself goes through them as it trains."""
    if isinstance(run.stage, PolicyTrain) and run.stage.online is not None:
        return run
    return replace(run, stage=at_update(run.stage, updates_before(run, context.recipe, context.directory)))


def _holds(store: str, run: StageRun, context: Context) -> bool:
    return bool(stores.added_to(store, run, context.recipe, context.directory))


def _condition_value(run: StageRun, stage: Stage, when: When, context: Context) -> float:
    """The last measured value that a condition is about."""
    entries = list(context.directory.journal.finished_entries())
    if when.from_ is not None:
        entries = list(references.entries(when.from_, run, context.directory))
    role = getattr(stage, "role", "actor")
    playing = context.lineage.playing(role)
    found = [measurement for entry in entries for measurement in entry.measurements if measurement["name"] == when.metric]
    found = [measurement for measurement in found if measurement["adapter"] == playing] or found
    if not found:
        raise RunFailed(f"stage {run.key} depends on {when.metric!r}, which nothing has measured yet")
    return float(found[-1]["value"])
