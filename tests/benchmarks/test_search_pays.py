"""The comparison of search and plain sampling: every method may spend the same tokens, all of them count, and later wins do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.ledger import Ledger
from agentloop.trace.render import Renderer
from agentloop.trace.tree import Spent, Tree
from benchmarks.search_pays import PLAIN, Bench, Spending, anatomy, as_markdown, likelihood, methods, spend, table
from tests.dataset.handmade_trees import episode, tree
from tests.sampling.search.test_textcraft import DEPTHS, Apprentice, known
from tests.sampling.world import CharacterTokenizer


def grown(tokens: int, *, success: bool = False, thrown_away: int = 0) -> Tree:
    """A tree of one turn that cost so many tokens, its stop token and those of a candidate that is no turn included."""
    (turn,) = episode(0, [[7] * (tokens - thrown_away - 1)], reward=float(success))
    return tree("sign", [replace(turn, success=success, spent=Spent(1, 5, 0, thrown_away) if thrown_away else turn.spent)])


async def spent(trees: Sequence[Tree], budget: int) -> tuple[Spending, list[tuple[int, int]]]:
    """What is spent if a method grows these, and what it was asked for."""
    asked: list[tuple[int, int]] = []

    async def grow(number: int, tokens: int) -> Tree:
        asked.append((number, tokens))
        return trees[number]

    return await spend(grow, budget), asked


async def test_a_method_is_begun_again_with_the_tokens_that_are_left_until_none_are() -> None:
    found, asked = await spent([grown(40), grown(35, thrown_away=30), grown(50), grown(5, success=True)], 100)
    assert asked == [(0, 100), (1, 60), (2, 25)]
    assert (found.generated, found.crafted, len(found.trees)) == (125, False, 3)


async def test_it_stops_with_its_first_success() -> None:
    found, asked = await spent([grown(40), grown(10, success=True), grown(40)], 100)
    assert asked == [(0, 100), (1, 60)] and found.crafted and found.generated == 50


async def test_a_tree_of_no_tokens_is_no_way_to_go_on() -> None:
    with pytest.raises(RuntimeError, match="generated nothing"):
        await spent([tree("sign", [])] * 2, 100)


def passed(method: str, seed: int, **tasks: tuple[int, bool]) -> dict[str, Any]:
    return {"method": method, "seed": seed, "tasks": tasks}


PASSES = [
    passed(PLAIN, 0, sign=(90, True), boat=(210, False), chest=(150, True), door=(203, False)),
    passed("mcts", 0, sign=(60, True), boat=(100, True), chest=(101, True), door=(200, False)),
    passed("mcts", 1, sign=(60, True), boat=(204, True), chest=(99, True), door=(200, False)),
]


def test_a_success_counts_where_all_that_was_generated_up_to_it_is_within_the_budget() -> None:
    rows = {(row["method"], row["budget"]): row for row in table(PASSES, [100, 200])}
    assert rows[PLAIN, 100]["value"] == 1 / 4 and rows[PLAIN, 200]["value"] == 2 / 4
    assert rows["mcts", 100]["value"] == 4 / 8 and rows["mcts", 200]["value"] == 5 / 8
    assert rows["mcts", 200]["tasks"] == 4 and rows["mcts", 200]["n"] == 8
    assert rows["mcts", 200]["low"] < 5 / 8 < rows["mcts", 200]["high"]


def test_the_difference_is_taken_goal_by_goal() -> None:
    rows = {(row["method"], row["budget"]): row for row in table(PASSES, [100, 200])}
    above = rows["mcts", 200]["above_plain"]
    assert above["value"] == pytest.approx((0 + 0.5 + 0 + 0) / 4) and above["tasks"] == 4
    assert above["low"] < above["value"] < above["high"] and "above_plain" not in rows[PLAIN, 200]
    lines = as_markdown(list(rows.values()), [100, 200]).splitlines()
    assert lines[0] == "| method | 100 tokens | 200 tokens | above plain |" and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| plain | 25 (") and "| +12 (" in lines[3]


async def test_the_likelier_path_a_token_is_preferred() -> None:
    turns = episode(0, [[7], [7, 7]], reward=0.0)
    path = tree("sign", [replace(turns[0], logprobs=(-3.0, -1.0)), replace(turns[1], logprobs=(-1.0, -2.0, -4.0))])
    verdict, asked = await likelihood(path, turns[1].id, seed=0)
    assert verdict.value == pytest.approx(-11 / 5) and not asked


@pytest.mark.parametrize("method", methods(SampleSettings()))
async def test_every_method_crafts_or_spends_all_its_tokens(method: str) -> None:
    """With a policy that knows the next step now and then, on the environment itself; a candidate is shorter than 60 letters."""
    budget = 900
    async with EnvironmentPool(find("textcraft"), {"depth": DEPTHS}, 4) as pool:
        tasks = [task for task, _ in known().values()][:3]
        bench = Bench(Apprentice(), Renderer(CharacterTokenizer()), pool, tasks, "train", budget)
        found = await bench.play(methods(SampleSettings(max_turns=8, max_tokens=60, concurrency=8))[method], seed=0)
    assert list(found) == [task.id for task in tasks]
    for one in found.values():
        assert one.generated == sum(Ledger.of_trees([tree], "pays").total().generated for tree in one.trees)
        assert one.crafted or one.generated >= budget
        assert one.generated < budget + 8 * 60
        assert len({tree.seed for tree in one.trees}) == len(one.trees)
    counts = anatomy([tree for one in found.values() for tree in one.trees])
    assert counts["candidates"] > counts["refused"] > 0 and counts["trees"] >= 3
    assert (counts.get("duplicates", 0) > 0) == (method != PLAIN)
    assert ("cut: loop" in counts) == ("end" in method)
