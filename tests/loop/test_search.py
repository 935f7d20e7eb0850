"""`sample` with every method through the command line: trees, what the journal tells, what learns from them, and what a kill keeps."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.dataset.store import ParquetRows
from agentloop.run.journal import Entry, Journal
from agentloop.trace.append_log import read_log
from agentloop.trace.hash import content_hash, trees_hash
from agentloop.trace.ledger import Ledger, Tokens
from agentloop.trace.search_statistics import search_statistics
from agentloop.trace.store import TreeWriter, read_trees
from agentloop.trace.tree import Tree
from tests.servers import TinyServer
from tests.warm import WarmStart

METHODS = {
    "mcts": "method: mcts, simulations: 4, width: 3, depth: 4, leaves: 2",
    "mcts with rollouts": "method: mcts, simulations: 4, width: 3, depth: 4, rollout: actor, until_win: true",
    "best_of_n": "method: best_of_n, width: 4, max_turns: 4",
    "beam": "method: beam, width: 2, branch: 3, max_turns: 4",
    "group": "method: group, samples: 9, max_turns: 4, tokens: 30",
}

SAMPLE = "  - sample:   {id: trees, tasks: 6, samples: 4, max_tokens: 8, max_turns: 4}"
TREES = "iterations/000/trees/trees.parquet"

SLOW = '''
import pathlib
import time

CALLS = pathlib.Path(__file__).with_name("calls.txt")


def slow(prompt_text, request):
    """Answers as before, but takes its time, and notes for which task it was asked."""
    time.sleep(0.02)
    with CALLS.open("a") as file:
        file.write(re.findall(r"user\\s+(\\d+)", prompt_text)[0] + "\\n")
    return answer(prompt_text, request)
'''


def searching(write: Callable[..., Path], settings: str, *changes: tuple[str, str]) -> Path:
    """The toy recipe, shortened to one search and the rows that are made of it."""
    recipe = write((SAMPLE, f"  - sample:   {{id: trees, max_tokens: 8, {settings}}}"), ("iterations: 2", "iterations: 1"), *changes)
    left_out = ("train:", "evaluate:", "gate:", "final:")
    lines = [line for line in recipe.read_text().splitlines() if not any(word in line for word in left_out)]
    recipe.write_text("\n".join(lines) + "\n")
    return recipe


def entry_of(out: Path) -> Entry:
    entry = Journal(out / "journal.jsonl").finished("000/trees")
    assert entry is not None
    return entry


@pytest.mark.parametrize("name", METHODS)
def test_rows_are_made_of_what_a_search_found(name: str, toy_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = searching(toy_recipe, f"tasks: 6, {METHODS[name]}")
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        assert agentloop(["run", str(recipe), "--out", str(out), "--quiet"]) == 0
    assert trees_hash(outs[0] / TREES) == trees_hash(outs[1] / TREES)
    trees = list(read_trees(outs[0] / TREES))
    solved = sum(any(turn.success for turn in tree.turns) for tree in trees)
    entry = entry_of(outs[0])
    assert len(trees) == 6 and solved
    assert str(entry.about["note"]).startswith(f"solved {solved} of 6 tasks in {entry.about['simulations']} simulations")
    assert Tokens(**entry.tokens) == Ledger.of_trees(trees, "trees").total()
    assert entry.tokens["prompt"] > entry.tokens["generated"] > 0
    assert name.startswith("mcts") == bool(search_statistics(trees[0]))
    rows = list(ParquetRows(outs[0] / "iterations/000/rows/rows.parquet"))
    whole = {tree.id: tree for tree in trees}
    for row in rows:
        tree, last = whole[row.provenance.tree], row.provenance.turns[-1]
        assert tree[last].success and list(row.input_ids) == tree.context_ids(last) + list(tree[last].completion_ids)
    if name == "group":
        assert all(len(tree.samples) < 9 for tree in trees), "the budget is used up before the samples are"


@pytest.mark.parametrize("method", ["mcts", "beam"])
def test_a_search_killed_again_and_again_loses_no_finished_tree(
    method: str, toy_recipe: Callable[..., Path], warm: WarmStart, tmp_path: Path
) -> None:
    recipe = searching(toy_recipe, f"tasks: 12, concurrency: 4, {METHODS[method]}", ("policy.py:answer", "policy.py:slow"))
    with (recipe.parent / "policy.py").open("a") as file:
        file.write(SLOW)
    whole, out, calls = tmp_path / "whole", tmp_path / "killed", recipe.with_name("calls.txt")
    assert agentloop(["run", str(recipe), "--out", str(whole), "--quiet"]) == 0
    calls.unlink()

    kept: dict[str, Tree] = {}
    half_done: set[str] = set()
    for wanted in (1, 4, 8):
        process = warm.run(recipe, out)
        deadline = time.monotonic() + 60
        while (fresh := records(out)) < wanted - len(kept) or len(begun(calls)) <= fresh:
            assert process.poll() is None, warm.log(out).read_text()
            assert time.monotonic() < deadline, f"waited 60 s for {wanted} trees"
            time.sleep(0.005)
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
        asked = begun(calls)
        assert not asked & {shown(tree) for tree in kept.values()}, "what was finished before is not searched again"
        found = finished(out)
        assert wanted <= len(found) < 12 and found.keys() > kept.keys()
        half_done |= asked - {shown(tree) for tree in found.values()}
        kept = found
        calls.unlink()
    assert half_done, "no kill met a tree half done"
    assert agentloop(["run", str(recipe), "--out", str(out), "--quiet"]) == 0

    assert not begun(calls) & {shown(tree) for tree in kept.values()}
    trees = {tree.id: tree for tree in read_trees(out / TREES)}
    assert {key: content_hash(tree) for key, tree in kept.items()} == {key: content_hash(trees[key]) for key in kept}
    assert trees_hash(out / TREES) == trees_hash(whole / TREES), "what was searched again is what it would have been"
    before, after = entry_of(whole), entry_of(out)
    assert after.tokens == before.tokens and after.about["resumed"] == len(kept)
    assert not (out / f"{TREES}.work").exists()


def records(out: Path) -> int:
    """How many trees a running search has added. `finished` before it has left the log empty, and would repair it now."""
    return sum(1 for log in (out / f"{TREES}.work").glob("pending-*.log") for _ in read_log(log))


def begun(calls: Path) -> set[str]:
    """What the tasks begin with for which the policy was asked."""
    return set(calls.read_text().split()) if calls.exists() else set()


def finished(out: Path) -> dict[str, Tree]:
    """The trees that a killed run has finished, by id."""
    with TreeWriter(out / TREES) as writer:
        return {tree.id: tree for tree in writer.fragments()}


def shown(tree: Tree) -> str:
    """The number that the task begins with."""
    return str(tree.task_data["start"])


@pytest.mark.vllm
def test_the_ledger_tells_what_the_prefix_cache_saved(tiny_server: TinyServer, tmp_path: Path) -> None:
    folder = Path(__file__).parent / "toy"
    (tmp_path / "anything.py").write_text((folder / "anything.py").read_text())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: search\nmodel: {tiny_server.world.model_path}\nengine: {{kind: vllm, url: '{tiny_server.url}'}}\n"
        "environment: {id: ./anything.py}\nstages:\n"
        "  - sample: {id: trees, tasks: 4, method: mcts, simulations: 3, width: 3, depth: 3, max_tokens: 6}\n"
    )
    out = tmp_path / "out"
    assert agentloop(["run", str(recipe), "--out", str(out), "--quiet"]) == 0
    trees = list(read_trees(out / TREES))
    tokens = entry_of(out).tokens
    turns = [turn for tree in trees for turn in tree.turns]
    assert sum(turn.cached_tokens + turn.spent.cached for turn in turns) == tokens["cached"]
    assert tokens["prompt"] > tokens["cached"] > tokens["prompt"] // 2, "siblings share their context"
    assert f"{tokens['cached']:,}" in (out / "report.html").read_text()
