"""Stores follow from the journal: what each stage sees, what is too old, too much or too poor, and what a replay empties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentloop.dataset.row import Provenance, Row
from agentloop.dataset.store import ParquetRows, write_rows
from agentloop.loop import stores
from agentloop.loop.context import FINAL, StageRun
from agentloop.recipe import Recipe
from agentloop.recipe.settings import Store
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Entry, Output


def recipe(**store: Any) -> Recipe:
    stages = [
        {"sample": {"id": "trees"}},
        {"build": {"id": "rows", "from": "trees", "dataset": "advantage", "into": "replay"}},
        {"train": {"id": "train", "from": ["rows", "replay"], "method": "grpo", "imitation": 1}},
    ]
    settings = {"name": "r", "model": "tiny", "environment": "x", "iterations": 9, "stores": {"replay": store}, "stages": stages}
    return Recipe.model_validate(settings)


def row(name: str, reward: float = 1.0, task: str = "t") -> Row:
    return Row(name, (1, 2), (0, 1), (0.0, -1.0), "actor", task, reward, False, "base", 1.0, Provenance("tree", ("0.0",)), 1.0, (0.0, 1.0))


class World:
    """A run in which rows are built and trainings replay, without any being trained."""

    def __init__(self, path: Path, **store: Any) -> None:
        self.directory = RunDirectory(path)
        self.recipe = recipe(**store)

    def built(self, iteration: int, *rows: Row) -> None:
        path = self.directory.artifact(f"{iteration:03d}", "rows", "rows")
        write_rows(path, rows)
        output = Output("rows", self.directory.relative(path), f"hash-{iteration}", len(rows))
        self.directory.journal.append(Entry("finished", f"{iteration:03d}/rows", outputs={"rows": output}))

    def trained(self, iteration: int, replayed: int) -> None:
        about = {"training": {"facts": {"replayed": replayed}}}
        self.directory.journal.append(Entry("finished", f"{iteration:03d}/train", about=about))

    def run(self, iteration: int, stage: str = "train") -> StageRun:
        found = next(one for one in self.recipe.stages if one.id == stage)
        return StageRun(found, iteration, f"{iteration:03d}")

    def seen(self, iteration: int, stage: str = "train") -> list[str]:
        path = stores.snapshot("replay", self.run(iteration, stage), self.recipe, self.directory)
        return [] if path is None else [one.id for one in ParquetRows(path)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_stage_sees_what_was_stored_before_it_and_sees_it_again_later(world: World) -> None:
    world.built(0, row("a"))
    before = world.seen(0, "rows"), world.seen(0), stores.hashes(world.run(0), world.recipe, world.directory)
    assert before == ([], ["a"], ["hash-0"])
    world.trained(0, 0)
    world.built(1, row("b"), row("c"))
    assert world.seen(1) == ["a", "b", "c"]
    assert (world.seen(0, "rows"), world.seen(0), stores.hashes(world.run(0), world.recipe, world.directory)) == before
    final = StageRun(world.run(0).stage, world.recipe.iterations, FINAL)
    assert len(stores.added_to("replay", final, world.recipe, world.directory)) == 2


def test_old_entries_leave_by_age_and_are_not_forgotten_elsewhere(tmp_path: Path) -> None:
    world = World(tmp_path, age=2)
    for iteration in range(5):
        world.built(iteration, row(f"r{iteration}"))
        world.trained(iteration, 0)
    assert world.seen(4) == ["r2", "r3", "r4"]
    assert len(stores.ever_added_to("replay", world.run(4), world.recipe, world.directory)) == 5


def test_a_replay_empties_the_store_but_for_the_rows_of_its_own_iteration(world: World) -> None:
    """SPEAR replays, empties, and only then stores what is new."""
    for iteration in range(3):
        world.built(iteration, row(f"r{iteration}"))
        world.trained(iteration, replayed=4 if iteration == 1 else 0)
    assert world.seen(1) == ["r0", "r1"], "the training that replays sees all of it"
    assert world.seen(2) == ["r1", "r2"]


def test_a_store_shows_the_newest_rows_within_its_bounds() -> None:
    rows = [row("a", 0.2), row("b", 1.0), row("c", 1.0, task="u"), row("d", 0.9)]
    assert [one.id for one in stores.shown(rows, Store(keep=2))] == ["c", "d"]
    assert [one.id for one in stores.shown(rows, Store(min_reward=0.5))] == ["b", "c", "d"]
    assert [one.id for one in stores.shown(rows, Store(per_task=1))] == ["c", "d"]
    assert stores.shown(rows, Store()) == rows and stores.shown([], Store(keep=1)) == []


def test_an_empty_store_leaves_no_snapshot(world: World) -> None:
    assert world.seen(0) == []
    world.built(0, replace(row("a"), reward=0.0))
    assert world.seen(0) == ["a"]
