"""`sample` with every method through the command line: trees, what the journal says of them, and what learns from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.dataset.store import ParquetRows
from agentloop.run.journal import Journal
from agentloop.trace.hash import trees_hash
from agentloop.trace.ledger import Ledger
from agentloop.trace.search_statistics import search_statistics
from agentloop.trace.store import read_trees

METHODS = {
    "mcts": "method: mcts, simulations: 4, width: 3, depth: 4, leaves: 2",
    "mcts with rollouts": "method: mcts, simulations: 4, width: 3, depth: 4, rollout: actor, until_win: true",
    "best_of_n": "method: best_of_n, width: 4, max_turns: 4",
    "beam": "method: beam, width: 2, branch: 3, max_turns: 4",
    "group": "method: group, samples: 9, max_turns: 4, tokens: 30",
}


SAMPLE = "  - sample:   {id: trees, tasks: 6, samples: 4, max_tokens: 8, max_turns: 4}"


@pytest.mark.parametrize("name", METHODS)
def test_rows_are_made_of_what_a_search_found(name: str, toy_recipe: Callable[..., Path], tmp_path: Path) -> None:
    stage = f"  - sample:   {{id: trees, tasks: 6, max_tokens: 8, {METHODS[name]}}}"
    recipe = toy_recipe((SAMPLE, stage), ("iterations: 2", "iterations: 1"))
    left_out = ("train:", "evaluate:", "gate:", "final:")
    lines = [line for line in recipe.read_text().splitlines() if not any(word in line for word in left_out)]
    recipe.write_text("\n".join(lines) + "\n")
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        assert agentloop(["run", str(recipe), "--out", str(out), "--quiet"]) == 0
    paths = [out / "iterations/000/trees/trees.parquet" for out in outs]
    assert trees_hash(paths[0]) == trees_hash(paths[1])
    trees = list(read_trees(paths[0]))
    solved = sum(any(turn.success for turn in tree.turns) for tree in trees)
    entry = Journal(outs[0] / "journal.jsonl").finished("000/trees")
    assert entry is not None and len(trees) == 6 and solved
    assert str(entry.about["note"]).startswith(f"solved {solved} of 6 tasks in {entry.about['simulations']} simulations")
    assert entry.tokens["generated"] == Ledger.of_trees(trees, "trees").total().generated
    assert name.startswith("mcts") == bool(search_statistics(trees[0]))
    rows = list(ParquetRows(outs[0] / "iterations/000/rows/rows.parquet"))
    whole = {tree.id: tree for tree in trees}
    for row in rows:
        tree, last = whole[row.provenance.tree], row.provenance.turns[-1]
        assert tree[last].success and list(row.input_ids) == tree.context_ids(last) + list(tree[last].completion_ids)
    if name == "group":
        assert all(len(tree.samples) < 9 for tree in trees), "the budget is used up before the samples are"
