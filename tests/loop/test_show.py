"""`agentloop show`: the report of a run as it lies on the disk, and the page of any of its trees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.dataset.store import ParquetRows
from agentloop.run.directory import RunDirectory
from agentloop.trace.store import read_trees


def test_the_report_is_written_anew_and_draws_trees(finished_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, out = finished_run
    (out / "report.html").unlink()
    assert agentloop(["show", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"report: {out / 'report.html'}" in shown and "95 % interval" in shown
    page = (out / "report.html").read_text()
    assert "<h2>Trees</h2>" in page and "<h3>001/trees</h3>" in page and "<script" not in page
    rows = list(ParquetRows(out / "iterations/001/rows/rows.parquet"))
    assert rows and any(f"trained by row {row.id} of 001/rows" in page for row in rows)


def test_any_tree_has_a_page_by_its_task_or_its_id(finished_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, out = finished_run
    for tree in list(read_trees(out / "iterations/000/trees/trees.parquet"))[:2]:
        for name in (tree.id, tree.task):
            assert agentloop(["show", str(out), "--tree", name]) == 0
            page = Path(capsys.readouterr().out.removeprefix("tree: ").strip())
            assert page == RunDirectory(out).tree_page(tree.id) and page.parent == out / "trees"
            text = page.read_text()
            assert [f'data-turn="{turn.id}"' in text for turn in tree.turns] == [True] * len(tree.turns)
            page.unlink()


def test_a_tree_that_is_not_there_is_a_mistake(finished_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, out = finished_run
    task = next(iter(read_trees(out / "iterations/001/trees/trees.parquet"))).task
    assert agentloop(["show", str(out), "--tree", task.replace("-", "_")]) == 2
    shown = capsys.readouterr().err
    assert "no such tree in this run" in shown and "did you mean 'from-" in shown and len(shown.splitlines()) == 1


def test_what_is_no_run_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert agentloop(["show", str(tmp_path)]) == 2
    assert "not the directory of a run" in capsys.readouterr().err


def test_a_tree_that_was_judged_is_drawn_with_its_verdicts_and_pairs_are_marked(toy_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """The judged tree stands for the unjudged one of the same id, and rows of pairs are no obstacle to a report."""
    judge = "  - judge:    {id: outcomes, from: trees, critic: outcome}\n"
    pairs = "  - build:    {id: pairs, from: outcomes, dataset: preference}\n"
    build = "  - build:    {id: rows"
    recipe = toy_recipe((build, judge + pairs + build), ("iterations: 2", "iterations: 1"))
    out = tmp_path / "out"
    assert agentloop(["run", str(recipe), "--out", str(out), "--quiet"]) == 0
    page = (out / "report.html").read_text()
    assert "<h3>000/outcomes</h3>" in page and "outcome: " in page
    made = RunDirectory(out).journal.finished("000/pairs")
    assert made is not None and made.outputs["pairs"].count > 0
    assert "trained against" in page and 'class="rejected"' in page
    trees = page[page.index("<h2>Trees</h2>") : page.index("<h2>Trajectories</h2>")]
    assert trees.count("<h3>") == 1, "the unjudged trees are drawn too"
