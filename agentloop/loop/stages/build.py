"""`build`: makes rows from trees by a dataset builder, or mixes rows in given shares. Needs no engine, and plays in no environment."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from agentloop.dataset import registry
from agentloop.dataset.build_report import BuildReport
from agentloop.dataset.mix import MixedRows
from agentloop.dataset.row import Row
from agentloop.dataset.row_format import RowFormat
from agentloop.dataset.schema import ROWS
from agentloop.dataset.store import ParquetRows, ParquetSource, write_rows
from agentloop.errors import RunFailed
from agentloop.loop import references, stores
from agentloop.loop.context import Context, Outcome, StageRun
from agentloop.recipe.build import Build, Mix
from agentloop.recipe.reference import Reference
from agentloop.run.journal import Output
from agentloop.sampling.prompt import preface
from agentloop.trace.author import Author
from agentloop.trace.store import read_trees
from agentloop.trace.tree import Tree

R = TypeVar("R")


async def build(run: StageRun, context: Context) -> Outcome:
    """Write the rows; a build without a single row is finished too, and the training that reads it is left out."""
    stage = run.stage
    assert isinstance(stage, Build)
    report = BuildReport()
    rows, form = (_mixed(stage, run, context), ROWS) if isinstance(stage, Mix) else await _built(stage, run, context, report)
    size = stage.size.at(run.schedule_at) if stage.size is not None else None
    if size is not None:
        rows = _drawn(list(rows), size, seed=f"{context.recipe.seed}/{run.key}")
    path = context.directory.artifact(run.label, "rows", stage.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = write_rows(path, rows, form=form)
    written = ParquetSource(path, form)
    tasks = len({row.task for row in written})
    output = Output("rows", context.directory.relative(path), written.content_hash(), count)
    about = {"note": _note(count, form, tasks, report), "tasks": tasks, "trained_ids": sum(row.trained for row in written)}
    facts = {"left_out": dict(report.left_out), "group_means": report.group_means, "channels": report.channels}
    return Outcome({stage.id: output}, about=about | {name: fact for name, fact in facts.items() if fact})


def _note(count: int, form: RowFormat[Any], tasks: int, report: BuildReport) -> str:
    """What was built, and what was left out of it, as a person reads it."""
    built = f"{count} {form.what} of {tasks} tasks" if count else f"no {form.what}"
    left_out = ", ".join(f"{number} {what}" for what, number in sorted(report.left_out.items()) if number)
    return f"{built}; left out: {left_out}" if left_out else built


async def _built(stage: Build, run: StageRun, context: Context, report: BuildReport) -> tuple[Iterable[Any], RowFormat[Any]]:
    """What the stage's builder makes of its trees, and of which kind that is; `report` fills while the rows are drawn."""
    builder = registry.find(str(stage.model_dump()["dataset"]))
    known = {field.name for field in fields(builder.settings)}
    settings = {name: value for name, value in stage.settings(run.schedule_at).items() if name in known}
    trees = _trees(references.paths(stage.inputs, run, context.directory))
    more: dict[str, Any] = {"author": await _author(context)} if builder.writes else {}
    if builder.reports:
        more["report"] = report
    return builder.build(trees, builder.configure(settings), stage=stage.id, iteration=run.iteration, **more), builder.format


async def _author(context: Context) -> Author:
    """Writes turns as this run's prompts have them. Worked examples are asked of the environment only where they could be needed."""
    count = context.examples()
    if not count or context.renderer.appendable:
        return Author(context.renderer)
    async with context.pool(context.environment(None), 1) as pool:
        return Author(context.renderer, (await preface(pool, count)).examples)


def _trees(paths: list[Path]) -> Iterator[Tree]:
    for path in paths:
        yield from read_trees(path)


def _mixed(stage: Mix, run: StageRun, context: Context) -> Iterator[Row]:
    sources: dict[str, ParquetRows | _Chain] = {}
    for name in stage.mix:
        parts = [ParquetRows(path) for path in _rows_of(Reference.parse(name), run, context)]
        sources[name] = parts[0] if len(parts) == 1 else _Chain(parts)
    shares = {name: share.at(run.schedule_at) for name, share in stage.mix.items()}
    if not any(len(source) for source in sources.values()):
        raise RunFailed(f"stage {run.key} has nothing to mix: {', '.join(sources)} are empty")
    return iter(MixedRows(sources, shares, seed=context.recipe.seed + run.iteration))


def _rows_of(reference: Reference, run: StageRun, context: Context) -> list[Path]:
    """Where the rows of an artifact, or of a store as it stands, lie."""
    if stores.in_stores((reference,), context.recipe):
        path = stores.snapshot(reference.name, run, context.recipe, context.directory)
        return [] if path is None else [path]
    return references.paths((reference,), run, context.directory)


class _Chain:
    """Several artifacts of rows as one `RowSource`, one after the other."""

    def __init__(self, parts: list[ParquetRows]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def __iter__(self) -> Iterator[Row]:
        for part in self._parts:
            yield from part


def _drawn(rows: list[R], size: int, *, seed: str) -> list[R]:
    """At most `size` rows, drawn by the seed, in their own order."""
    if len(rows) <= size:
        return rows
    chosen = set(random.Random(seed).sample(range(len(rows)), size))
    return [row for index, row in enumerate(rows) if index in chosen]
