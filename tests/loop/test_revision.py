"""Failed episodes are gone on from in a real environment, become rows, and are what a model is measured on, in one recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.dataset.preference_row import PreferenceRow
from agentloop.dataset.row import Row
from agentloop.dataset.store import ParquetPreferences, ParquetRows
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Journal
from agentloop.trace.store import read_trees
from agentloop.trace.tree import Tree


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, toy_model: Path, warm_training: None) -> Path:
    """The directory of one finished run."""
    folder = tmp_path_factory.mktemp("revision")
    for file in (Path(__file__).parent / "toy").iterdir():
        (folder / file.name).write_text(file.read_text().replace("MODEL", str(toy_model)))
    assert agentloop(["run", str(folder / "revision.yaml"), "--out", str(folder / "out"), "--quiet"]) == 0
    return folder / "out"


def trees(out: Path, name: str, label: str = "000") -> dict[str, Tree]:
    return {tree.id: tree for tree in read_trees(out / f"iterations/{label}/trees/{name}.parquet")}


def rows(out: Path, name: str) -> list[Row]:
    return list(ParquetRows(out / f"iterations/000/rows/{name}.parquet"))


def test_episodes_go_on_from_the_state_that_a_failure_left(out: Path) -> None:
    first, again = trees(out, "trees"), trees(out, "again")
    failed = [tree for tree in first.values() if any(not leaf.success for leaf in tree.leaves())]
    assert {tree.task for tree in again.values()} == {tree.task for tree in failed} and failed
    for tree in again.values():
        leaves = list(tree.leaves())
        assert leaves and all(leaf.success for leaf in leaves), "once it has said oops, this policy reckons without mistakes"
        for leaf in leaves:
            path = tree.path(leaf.id)
            given = [turn for turn in path if turn.given]
            assert [first[f"000/trees/{tree.task}"][turn.id].completion_ids for turn in given] == [turn.completion_ids for turn in given]
            assert not any(turn.done for turn in path[:-1])
            assert path[len(given)].text == "oops" and path[len(given)].observation == "ok."


def test_replayed_revisions_and_good_paths_are_trained_on(out: Path) -> None:
    known = {**trees(out, "trees"), **trees(out, "again")}
    built = rows(out, "rows")
    assert 0 < len(built) <= 20 and {row.authored for row in built} == {True, False}
    for row in built:
        tree = known[row.provenance.tree]
        last = row.provenance.turns[-1]
        assert tree[last].success and list(row.input_ids) == [*tree.context_ids(last), *tree[last].completion_ids]
        trained = [token for token, train in zip(row.input_ids, row.mask, strict=True) if train]
        assert trained == [token for turn in row.provenance.turns for token in tree[turn].completion_ids]
        assert all(tree[turn].given for turn in row.provenance.context) and row.authored is bool(row.provenance.context)
    entry = Journal(out / "journal.jsonl").finished("000/policy")
    assert entry is not None and entry.about["training"]["rows"] == len(built)


def test_the_other_builders_take_the_same_trees(out: Path) -> None:
    known = trees(out, "trees")
    direct, optimal = rows(out, "direct"), rows(out, "optimal")
    assert direct and all(row.authored and row.reward == 1.0 for row in direct)
    assert all(known[row.provenance.tree][row.provenance.context[-1]].done for row in direct)
    assert optimal and all(known[row.provenance.tree][row.provenance.turns[-1]].success for row in optimal)
    pairs: list[PreferenceRow] = list(ParquetPreferences(out / "iterations/000/rows/pairs.parquet"))
    assert pairs and all(row.chosen.value > row.rejected.value for row in pairs)


def test_a_model_is_measured_from_others_failures(out: Path) -> None:
    measured = [line for line in RunDirectory(out).read_metrics() if line["name"] == "success"]
    by_stage = {line["stage"]: line for line in measured}
    bad, revised = trees(out, "bad", "final"), trees(out, "revised", "final")
    failed = [leaf for tree in bad.values() for leaf in tree.leaves() if not leaf.success]
    assert by_stage["bad"]["value"] < 1.0 and by_stage["revised"]["value"] == 1.0
    assert {tree.task for tree in revised.values()} == {
        tree.task for tree in bad.values() if not all(leaf.success for leaf in tree.leaves())
    }
    assert 0 < by_stage["revised"]["n"] <= len(failed) and by_stage["revised"]["tasks"] == len(revised)
    assert {turn.draw.adapter for tree in revised.values() for turn in tree.turns if turn.given} == {"base"}
    assert {turn.draw.adapter for tree in revised.values() for turn in tree.turns if not turn.given} == {by_stage["revised"]["adapter"]}
    assert by_stage["revised"]["adapter"].startswith("actor-000-")
    record = json.loads((out / "iterations/final/evaluation/revised.json").read_text())
    assert record["settings"]["start_from"]["from"] == "bad"


def test_what_was_taken_over_costs_nothing_again(out: Path) -> None:
    entry = Journal(out / "journal.jsonl").finished("000/again")
    assert entry is not None
    played = [turn for tree in trees(out, "again").values() for turn in tree.turns if not turn.given and not turn.authored]
    assert entry.tokens["turns"] == len(played)
    assert entry.tokens["generated"] == sum(len(turn.completion_ids) for turn in played)


def test_nodes_of_another_split_are_refused(toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (Path(__file__).parent / "toy").iterdir():
        (tmp_path / file.name).write_text(file.read_text().replace("MODEL", str(toy_model)))
    recipe = tmp_path / "revision.yaml"
    recipe.write_text(recipe.read_text().replace("{id: onward, split: train", "{id: onward, split: dev"))
    assert agentloop(["run", str(recipe), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "would start from trees of another split; found 'train'; expected dev" in capsys.readouterr().err
