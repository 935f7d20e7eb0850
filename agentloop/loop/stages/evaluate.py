"""`evaluate`: measures the role's current adapter on frozen tasks, and the base under the same prompt, tasks, decoding and seeds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agentloop.engine.base import BASE
from agentloop.evaluation.benchmark import Evaluation, evaluate_trees
from agentloop.evaluation.measure import compare
from agentloop.loop import references
from agentloop.loop.context import Context, Outcome, StageRun
from agentloop.loop.stages.play import play, sampling_facts, success_in_short
from agentloop.recipe.measure import Evaluate
from agentloop.run.artifact import write_json
from agentloop.run.journal import Output
from agentloop.sampling.choice import frozen_tasks
from agentloop.trace.hash import content_hash, file_hash
from agentloop.trace.ledger import Tokens


async def evaluate(run: StageRun, context: Context) -> Outcome:
    """Play the frozen tasks with the current adapter (and the base), or measure the trees that `from` names; write `evaluation/ID.json`."""
    stage = run.stage
    assert isinstance(stage, Evaluate)
    outcome = Outcome()
    if stage.from_:
        evaluations = {"trees": _measure_trees(run, context, stage)}
    else:
        evaluations = await _play(run, context, stage, outcome)
    tokens = Tokens()
    for adapter, evaluation in evaluations.items():
        tokens += evaluation.tokens
        for kind, count in evaluation.failures.items():
            outcome.failures[kind] = outcome.failures.get(kind, 0) + count
        outcome.measurements += _measurements(run, context, stage, adapter, evaluation)
    outcome.tokens = asdict(tokens)
    outcome.about["note"] = ", ".join(f"{adapter} {success_in_short(found)}" for adapter, found in evaluations.items())
    path = context.directory.artifact(run.label, "measurement", stage.id)
    write_json(path, _record(run, context, evaluations, outcome.measurements))
    about = {"adapters": list(evaluations), "split": stage.split}
    relative = context.directory.relative(path)
    outcome.outputs[stage.id] = Output("measurement", relative, content_hash(outcome.measurements), len(outcome.measurements), about)
    return outcome


async def _play(run: StageRun, context: Context, stage: Evaluate, outcome: Outcome) -> dict[str, Evaluation]:
    """One evaluation an adapter, the base last, each with trees of its own; keyed by the adapter's versioned name."""
    current = context.lineage.playing(stage.role)
    evaluations: dict[str, Evaluation] = {}
    for name in dict.fromkeys([current, BASE] if stage.compare_to == BASE else [current]):
        again = name == BASE and stage.start_from is None  # what it would start from differs from iteration to iteration
        if again and (earlier := _earlier_base(run, context, stage)) is not None:
            evaluations[BASE] = earlier
            continue
        adapter, check = await context.serving.serve(context.lineage.versions.get(name))
        # Named by the role of the adapter and not by its version: bfloat16 and float32 machines give one layout.
        path = context.directory.artifact(run.label, "trees", stage.id if name == current else f"{stage.id}-base")
        evaluations[name] = await play(
            run,
            context,
            stage,
            path,
            adapter=adapter,
            environment=context.environment(stage.environment),
            split=stage.split,
            choose=frozen_tasks,
        )
        if check:
            outcome.about["adapter_check"] = check
    outcome.about |= sampling_facts(*(evaluation.sampling for evaluation in evaluations.values()))
    return evaluations


def _earlier_base(run: StageRun, context: Context, stage: Evaluate) -> Evaluation | None:
    """The base as this stage measured it in an earlier iteration under equal settings: its weights do not change."""
    for iteration in range(run.iteration):
        entry = context.directory.journal.finished(f"{iteration:03d}/{stage.id}")
        if entry is None or stage.settings(iteration) != stage.settings(run.schedule_at):
            continue
        adapters = entry.outputs[stage.id].about["adapters"]
        name = stage.id if adapters[0] == BASE else f"{stage.id}-base"
        path = context.directory.artifact(f"{iteration:03d}", "trees", name)
        if BASE in adapters and path.exists():
            return evaluate_trees(path, stage=stage.id, iteration=run.label)
    return None


def _measure_trees(run: StageRun, context: Context, stage: Evaluate) -> Evaluation:
    found = references.paths(stage.from_ or (), run, context.directory)
    return evaluate_trees(found[-1], stage=stage.id, iteration=run.label)


def _measurements(run: StageRun, context: Context, stage: Evaluate, adapter: str, evaluation: Evaluation) -> list[dict[str, Any]]:
    """The measurements as lines of `metrics.jsonl`."""
    more = {"adapter": adapter, "split": stage.split, "seed": context.recipe.seed, "iteration": run.label}
    wanted = {*stage.metrics, "success", "failures"}
    return [asdict(measurement) | more for measurement in evaluation.measurements if measurement.name in wanted]


def _record(run: StageRun, context: Context, evaluations: dict[str, Evaluation], measurements: list[dict[str, Any]]) -> dict[str, Any]:
    """What `evaluation/ID.json` says: enough to know what was measured, how, and to compare it."""
    stage = run.stage
    adapters = list(evaluations)
    record: dict[str, Any] = {
        "model": context.model.name,
        "model_source": context.model.source,
        "adapters": {name: version.content_hash for name in adapters if (version := context.lineage.versions.get(name)) is not None},
        "engine": asdict(context.serving.info) if context.serving.info is not None else None,
        "settings": {key: value for key, value in stage.model_dump(mode="json", by_alias=True).items() if value is not None},
        "prompt": context.prompt(),
        "environments": {name: entry.model_dump(mode="json") for name, entry in context.recipe.all_environments().items()},
        "seed": context.recipe.seed,
        "measurements": measurements,
        "failures": {name: evaluation.failures for name, evaluation in evaluations.items()},
        "tokens": {name: asdict(evaluation.tokens) for name, evaluation in evaluations.items()},
        "trees": {
            name: {"path": context.directory.relative(found.trees), "file": file_hash(found.trees)} for name, found in evaluations.items()
        },
    }
    if len(adapters) == 2:
        differences = compare(evaluations[adapters[0]].tally, evaluations[adapters[1]].tally)
        record["differences"] = {name: asdict(difference) for name, difference in differences.items()}
    return record
