"""The shipped recipes of Agent-R and its baselines, run whole at the size of a toy: what each trains on, and what comes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.dataset.row import Row
from agentloop.dataset.store import ParquetRows
from agentloop.recipe import load, plan
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Journal
from agentloop.trace.store import read_trees
from agentloop.trace.tree import Tree
from agentloop.trace.verdict import first_error

pytestmark = pytest.mark.usefixtures("warm_training")

RECIPES = Path(__file__).parents[2] / "recipes"
ITERATIONS = 2


def run(name: str, model: Path, folder: Path) -> Path:
    """Run a recipe with the scripted reckoner, who is careful once it has said "oops"; returns its directory."""
    shutil.copy(RECIPES / f"{name}.yaml", folder)
    shutil.copy(Path(__file__).parent / "toy/reckoner.py", folder)
    changes = {
        "model": model,
        "engine": "{kind: scripted, script: ./reckoner.py:player, max_model_len: 8000}",
        "environment": "{id: calculator, terse: true, levels: [2]}",
        "prompt.examples": 0,
        "iterations": ITERATIONS,
        "stages.trees.tasks": 6,
        "stages.trees.temperature": 1,
        "stages.rows.size": 12,
        "stages.train.updates": 2,
        "stages.train.rank": 4,
        "stages.dev.tasks": 4,
        "final.test.tasks": 6,
    }
    if name.startswith("agent_r"):
        changes |= {"stages.rows.thoughts": "[oops]", "stages.rows.answer": "error", "final.bad.tasks": 12, "final.bad.temperature": 1}
    overrides = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    assert agentloop(["run", str(folder / f"{name}.yaml"), "--out", str(folder / "out"), "--quiet", *overrides]) == 0
    return folder / "out"


def rows_of(out: Path, iteration: int) -> list[Row]:
    return list(ParquetRows(out / f"iterations/{iteration:03d}/rows/rows.parquet"))


def trees_of(out: Path, iteration: int, stage: str = "trees") -> dict[str, Tree]:
    return {tree.id: tree for tree in read_trees(out / f"iterations/{iteration:03d}/trees/{stage}.parquet")}


def success(out: Path) -> dict[str, float]:
    """By stage of the end, of what was trained."""
    lines = [line for line in RunDirectory(out).read_metrics() if line["iteration"] == "final" and line["name"] == "success"]
    return {line["stage"]: line["value"] for line in lines if line["adapter"] != "base" or line["stage"] == "bad"}


@pytest.mark.parametrize(("name", "stages"), [("agent_r", 5), ("agent_r_direct", 4), ("mcts_distill", 5)])
def test_they_load_on_any_machine_and_have_the_published_schedule(name: str, stages: int) -> None:
    recipe = load(RECIPES / f"{name}.yaml")
    assert recipe.iterations == 3 and len({(planned.stage.id) for planned in plan(recipe)}) >= stages
    rows = next(stage for stage in recipe.stages if stage.id == "rows")
    assert [rows.settings(iteration)["alpha"] for iteration in range(3)] == [0.5, 0.7, 1.0]
    assert len((RECIPES / f"{name}.yaml").read_text().splitlines()) < 40


@pytest.mark.slow
def test_agent_r_trains_on_what_follows_the_first_error(toy_model: Path, tmp_path: Path) -> None:
    out = run("agent_r", toy_model, tmp_path)
    for iteration in range(ITERATIONS):
        trees, rows = trees_of(out, iteration, "errors"), rows_of(out, iteration)
        revisions = [row for row in rows if row.authored]
        assert revisions and len(rows) <= 12
        for row in revisions:
            tree, shown = trees[row.provenance.tree], row.provenance.context
            error = next(turn for turn in tree.path(shown[-1]) if first_error(tree, turn.id))
            assert error.id in shown and row.provenance.verdicts == ("first_error",)
            assert tree[row.provenance.turns[-1]].success and not set(row.provenance.turns) & set(shown)
        entry = Journal(out / "journal.jsonl").finished(f"{iteration:03d}/train")
        assert entry is not None and entry.about["training"]["steps"] == 2
    found = success(out)
    assert found["bad"] < 1.0 and 0.0 <= found["revised"] <= 1.0


@pytest.mark.slow
def test_direct_revision_trains_on_what_follows_the_end(toy_model: Path, tmp_path: Path) -> None:
    out = run("agent_r_direct", toy_model, tmp_path)
    trees, revisions = trees_of(out, 0), [row for row in rows_of(out, 0) if row.authored]
    assert revisions
    for row in revisions:
        last = trees[row.provenance.tree][row.provenance.context[-1]]
        assert (last.done or last.truncated) and not last.success
    assert not (out / "iterations/000/trees/errors.parquet").exists()


@pytest.mark.slow
def test_search_is_distilled_from_wins_alone(toy_model: Path, tmp_path: Path) -> None:
    out = run("mcts_distill", toy_model, tmp_path)
    for iteration in range(ITERATIONS):
        trees, rows = trees_of(out, iteration), rows_of(out, iteration)
        assert rows and not any(row.authored for row in rows)
        assert all(trees[row.provenance.tree][row.provenance.turns[-1]].success for row in rows)
    gate = Journal(out / "journal.jsonl").finished("000/gate")
    assert gate is not None and gate.about["gate"]["metric"] == "success"
