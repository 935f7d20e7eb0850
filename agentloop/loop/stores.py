"""Stores: what lives across iterations, read from the journal and never kept apart from it.

A store is the rows of the finished `build` stages that say `into`, in the order of the plan. A stage sees what came before it, so a
resumed run sees what the first try saw: every snapshot follows from the journal, and nothing is written to a store that could be torn. Rows
that are too old, too many or too poor for the store's settings are left out when it is read; a store that a training replayed from is empty
of what was in it then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agentloop.dataset.row import Row
from agentloop.dataset.store import ParquetRows, write_rows
from agentloop.loop.context import FINAL, StageRun
from agentloop.recipe.build import Build
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.reference import Reference
from agentloop.recipe.settings import Store
from agentloop.recipe.stage import Stage
from agentloop.recipe.train import Train
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Entry


@dataclass(frozen=True, slots=True)
class Added:
    """What one stage added to a store: in which iteration, and the stage's line in the journal."""

    iteration: int
    entry: Entry


def in_stores(references: Iterable[Reference], recipe: Recipe) -> list[str]:
    """Names of the stores among the references."""
    return [reference.name for reference in references if not reference.file and reference.name in recipe.stores]


def added_to(name: str, run: StageRun, recipe: Recipe, directory: RunDirectory) -> list[Added]:
    """What lies in a store when `run` begins, the oldest first, but for what is too old for it."""
    age, replayed = recipe.stores[name].age, -1
    found: list[Added] = []
    for iteration, stage, entry in finished_before(run, recipe, directory):
        if isinstance(stage, Build) and stage.into == name and entry.outputs:
            found.append(Added(iteration, entry))
        if isinstance(stage, Train) and name in in_stores(stage.inputs, recipe) and replayed_rows(entry):
            replayed = iteration
    # The rows of the iteration that replayed were stored after the replay, wherever their build stands.
    return [one for one in found if one.iteration >= replayed and (age is None or run.iteration - one.iteration <= age)]


def ever_added_to(name: str, run: StageRun, recipe: Recipe, directory: RunDirectory) -> list[Added]:
    """All that was ever added before `run`, however old, the oldest first."""
    stages = finished_before(run, recipe, directory)
    return [Added(iteration, entry) for iteration, stage, entry in stages if isinstance(stage, Build) and stage.into == name]


def replayed_rows(entry: Entry) -> int:
    """How many rows a training replayed from its stores."""
    training = entry.about.get("training") or {}
    return int((training.get("facts") or {}).get("replayed", 0))


def hashes(run: StageRun, recipe: Recipe, directory: RunDirectory) -> list[str]:
    """Content hashes of what a stage reads from stores, for its fingerprint."""
    names = in_stores(run.stage.inputs, recipe)
    added = [one for name in names for one in added_to(name, run, recipe, directory)]
    return [output.content_hash for one in added for output in one.entry.outputs.values()]


def snapshot(name: str, run: StageRun, recipe: Recipe, directory: RunDirectory) -> Path | None:
    """Write the rows that a store shows to `run` to a file and return its path; None where there are none.

    The file follows from the journal: it is written again whenever it is asked for.
    """
    added = added_to(name, run, recipe, directory)
    paths = [directory.path / output.path for one in added for output in one.entry.outputs.values()]
    rows = shown([row for path in paths for row in ParquetRows(path)], recipe.stores[name])
    path = directory.path / "iterations" / run.label / "stores" / f"{name}-{run.stage.id}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path if write_rows(path, rows) else None


def shown(rows: list[Row], store: Store) -> list[Row]:
    """Those of the rows, the oldest first, that a store's `min_reward`, `per_task` and `keep` leave: of too many the newest."""
    counted: Counter[str] = Counter()
    kept: list[Row] = []
    for row in reversed(rows):
        if store.min_reward is not None and row.reward < store.min_reward:
            continue
        if store.per_task is not None and counted[row.task] >= store.per_task:
            continue
        if store.keep is not None and len(kept) >= store.keep:
            break
        counted[row.task] += 1
        kept.append(row)
    return kept[::-1]


def finished_before(run: StageRun, recipe: Recipe, directory: RunDirectory) -> Iterator[tuple[int, Stage, Entry]]:
    """Iteration, stage and journal line of the stages that were finished before `run`, in the order of the plan."""
    for iteration in range(min(run.iteration + 1, recipe.iterations)):
        for stage in recipe.stages:
            if iteration == run.iteration and run.label != FINAL and stage.id == run.stage.id:
                return
            entry = directory.journal.finished(f"{iteration:03d}/{stage.id}")
            if entry is not None:
                yield iteration, stage, entry
