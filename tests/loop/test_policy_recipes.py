"""The shipped recipes of policy gradients, run whole at the size of a toy: what they train on and what they replay."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.dataset.row import Row
from agentloop.dataset.store import ParquetRows
from agentloop.recipe import load
from agentloop.run.journal import Entry, Journal
from agentloop.trace.store import read_trees

pytestmark = pytest.mark.usefixtures("warm_training")

RECIPES = Path(__file__).parents[2] / "recipes"


def overrides(model: Path, **more: Any) -> list[str]:
    """A recipe at the size of a toy: the scripted reckoner, who gets a step right six times in ten, and a one-layer model that trains."""
    changes = {
        "model": model,
        "engine": "{kind: scripted, script: ./reckoner.py:answer, max_model_len: 8000}",
        "environment": "{id: calculator, terse: true, levels: [2]}",
        "prompt.examples": 0,
        "stages.trees.tasks": 6,
        "stages.trees.samples": 4,
        "stages.train.rank": 4,
        "stages.train.batch_size": 8,
        "stages.dev.tasks": 3,
        "final.test.tasks": 3,
    } | more
    return [word for key, value in changes.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


def run(name: str, model: Path, folder: Path, **more: Any) -> Path:
    shutil.copy(RECIPES / f"{name}.yaml", folder)
    shutil.copy(Path(__file__).parent / "toy/reckoner.py", folder)
    assert agentloop(["run", str(folder / f"{name}.yaml"), "--out", str(folder / "out"), "--quiet", *overrides(model, **more)]) == 0
    return folder / "out"


def entry(out: Path, key: str) -> Entry:
    found = Journal(out / "journal.jsonl").finished(key)
    assert found is not None
    return found


def rows_of(out: Path, iteration: int) -> list[Row]:
    return list(ParquetRows(out / f"iterations/{iteration:03d}/rows/rows.parquet"))


def test_they_load_on_any_machine_and_are_short() -> None:
    spear = load(RECIPES / "spear.yaml")
    rows, train = (next(stage for stage in spear.stages if stage.id == name) for name in ("rows", "train"))
    assert [round(float(rows.settings(at)["tool_reward"]), 3) for at in (0, 100, 200, 300)] == [0.1, 0.05, 0.0, 0.0]  # type: ignore[arg-type]
    assert [train.settings(at)["imitation"] for at in (0, 100, 200)] == pytest.approx([0.0, 0.5, 1.0])
    assert load(RECIPES / "grpo.yaml").iterations > 1
    assert all(len((RECIPES / f"{name}.yaml").read_text().splitlines()) < 40 for name in ("grpo", "spear"))


@pytest.mark.slow
def test_grpo_trains_on_every_group_that_says_something(toy_model: Path, tmp_path: Path) -> None:
    out = run("grpo", toy_model, tmp_path, iterations=2)
    for iteration in range(2):
        trees = {tree.id: tree for tree in read_trees(out / f"iterations/{iteration:03d}/trees/trees.parquet")}
        rows, built, trained = rows_of(out, iteration), entry(out, f"{iteration:03d}/rows"), entry(out, f"{iteration:03d}/train")
        mixed = {name for name, tree in trees.items() if len({leaf.success for leaf in tree.leaves()}) == 2}
        assert {row.provenance.tree for row in rows} == mixed and mixed
        assert built.about.get("left_out", {}).get("groups without variance", 0) == len(trees) - len(mixed)
        for row in rows:
            assert row.logprobs is not None and row.advantages is not None
            assert (max(row.advantages) > 0) is (row.reward == 1.0), "what won its group is pushed up, what lost it down"
        facts = trained.about["training"]["facts"]
        assert trained.about["training"]["rows"] == len(rows) and facts["replayed"] == 0
        assert facts["entropy"]["first"] > 0 and "entropy" in trained.about["note"]
    assert {row.adapter.split("-")[0] for row in rows_of(out, 0)} == {"base"} != {row.adapter.split("-")[1] for row in rows_of(out, 1)}


@pytest.mark.slow
def test_spear_replays_old_successes_once_and_a_second_run_does_nothing(toy_model: Path, tmp_path: Path) -> None:
    """The store fills, is replayed from once the weight is above 0 and it holds enough, and is empty then but for what is new."""
    more = {
        "iterations": 4,
        "stages__train__imitation": "{by: iteration, linear: {from: 0, to: 1, over: 2}}",
        "stages__train__replay__size": 4,
        "stages__train__replay__least": 0.5,
    }
    out = run("spear", toy_model, tmp_path, **more)
    replayed = [entry(out, f"{at:03d}/train").about["training"]["facts"]["replayed"] for at in range(4)]
    assert replayed[0] == 0, "gamma(0) = 0, and nothing is stored yet"
    assert replayed[1] in (2, 4) and "of the rows replayed" in entry(out, "001/train").about["note"]
    seen = {at: [row.id for row in ParquetRows(out / f"iterations/{at:03d}/stores/replay-train.parquet")] for at in range(4)}
    built = {at: [row.id for row in rows_of(out, at)] for at in range(4)}
    assert seen[1] == built[0] + built[1] and seen[2] == built[1] + built[2], "emptied by the replay of iteration 1"
    facts, means = entry(out, "001/train").about["training"]["facts"], entry(out, "000/rows").about["group_means"]
    assert len(means) == 4 and facts["baseline"] == pytest.approx(median(means)), "three quarters of the six groups are kept"
    assert facts["replay_updates"] == 1 and facts["updates"] == -(-len(built[1]) // 8)
    assert max(row.reward for row in rows_of(out, 0)) == pytest.approx(1.3), "the success, and three turns at 0.1 each"
    assert run("spear", toy_model, tmp_path, **more) == out
    finished = [one.stage for one in Journal(out / "journal.jsonl").entries if one.event == "finished"]
    assert len(set(finished)) == len(finished), "every stage ran once"
