"""The shipped recipes, run whole at the size of a toy: what each trains on, and what comes of it.

The demo's learns: the tiny policy through the real engine, trainer, adapter check and gate. Those of Agent-R play with a scripted engine.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.dataset.row import Row
from agentloop.dataset.store import ParquetPreferences, ParquetRows
from agentloop.recipe import load, plan
from agentloop.report.summary import summarise
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
    shutil.copy(Path(__file__).parent / "toy/reckoner.py", folder)
    changes: dict[str, Any] = {
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
    return run_changed(name, folder, changes)


def run_changed(name: str, folder: Path, changes: dict[str, Any]) -> Path:
    """Run a recipe with these changes; returns its directory."""
    shutil.copy(RECIPES / f"{name}.yaml", folder)
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_raises_the_success_of_the_tiny_policy(tmp_path: Path) -> None:
    play = {"temperature": 1, "max_tokens": 24}
    changes = {
        "model": "tiny",
        "engine": "{kind: transformers}",
        "environment": "{id: calculator, terse: true}",
        "prompt.examples": 0,
        "iterations": 1,
        "stages.rows.best": "null",
        "stages.train.max_rows": "null",
        "stages.train.epochs": 8,
        "stages.train.learning_rate": 2e-3,
        "stages.train.batch_size": 16,
        "stages.trees.samples": 4,
        "final.test.tasks": 120,
    }
    changes |= {f"{stage}.{key}": value for stage in ("stages.trees", "stages.dev", "final.test") for key, value in play.items()}
    overrides = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    out = tmp_path / "out"
    assert agentloop(["run", str(RECIPES / "quickstart.yaml"), "--out", str(out), "--quiet", *overrides]) == 0
    summary = summarise(RunDirectory(out))
    adapter, base = (point for point in summary.of("success") if point.split == "test")
    assert base.adapter == "base" and adapter.adapter.startswith("actor-000-")
    assert adapter.low is not None and base.high is not None
    assert adapter.low > base.high, f"{base.value:.2f} ({base.interval}) to {adapter.value:.2f} ({adapter.interval})"
    check = Journal(out / "journal.jsonl").finished("000/train")
    assert check is not None and check.about["adapter_check"]["share"] is not None, "what was trained is what was served"
    assert not summary.untrained and not summary.failures


def test_dpo_trains_on_pairs_of_a_better_and_a_worse_episode(toy_model: Path, tmp_path: Path) -> None:
    out = run("dpo", toy_model, tmp_path)
    for iteration in range(ITERATIONS):
        trees, pairs = trees_of(out, iteration), list(ParquetPreferences(out / f"iterations/{iteration:03d}/rows/rows.parquet"))
        assert pairs and all(pair.chosen.value > pair.rejected.value for pair in pairs)
        for pair in pairs:
            tree = trees[pair.chosen.provenance.tree]
            assert tree[pair.chosen.provenance.turns[-1]].success and not tree[pair.rejected.provenance.turns[-1]].success
        entry = Journal(out / "journal.jsonl").finished(f"{iteration:03d}/train")
        assert entry is not None and entry.about["training"]["steps"] == 2
        assert entry.about["training"]["rows"] == len(pairs)


@pytest.mark.slow
def test_rise_trains_on_each_attempt_behind_those_before_it(toy_model: Path, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "toy/guesser.py", tmp_path)
    changes = {
        "model": toy_model,
        "engine": "{kind: scripted, script: ./guesser.py:player, max_model_len: 8000}",
        "prompt.examples": 0,
        "stages.tries.tasks": 8,
        "stages.improved.samples": 4,
        "stages.train.updates": 2,
        "stages.train.rank": 4,
        "stages.dev.tasks": 4,
        "final.one.tasks": 6,
        "final.test.tasks": 6,
    }
    out = run_changed("rise", tmp_path, changes)
    for iteration in range(ITERATIONS):
        tries = trees_of(out, iteration, "tries")
        assert [len(list(tree.leaves())) for tree in tries.values()] == [1] * 8, "one answer of the present model a turn, as published"
        trees = tries | trees_of(out, iteration, "improved")
        rows = rows_of(out, iteration)
        assert {row.reward for row in rows} >= {0.0, 1.0}, "wrong attempts are trained on too"
        for row in rows:
            tree, (turn,) = trees[row.provenance.tree], row.provenance.turns
            before = tree.path(turn)[:-1]
            assert row.weight == pytest.approx(math.exp(tree[turn].reward / 0.4)) and row.reward == tree[turn].reward
            assert len(before) <= iteration + 1 and not any(earlier.reward == 1.0 for earlier in before)
        improved = [row.input_ids[: row.mask.index(1)] for row in rows if "/improved/" in row.provenance.tree]
        assert len(improved) == len(set(improved)) > 0, "one of four answers from each point"
    assert success(out).keys() == {"one", "test"}
