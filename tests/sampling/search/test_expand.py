"""What is one candidate and what are several, and what the tree keeps of those that did the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from agentloop.engine.base import Generation, GenerationRequest
from agentloop.environment.base import Environment, StepResult, Task
from agentloop.errors import Mistake, RunFailed
from agentloop.sampling.search.candidate import choose
from agentloop.sampling.search.settings import Expansion, Limits
from agentloop.trace.ledger import Ledger
from agentloop.trace.tree import Spent
from tests.sampling.search_world import HistoryEngine, dice, mcts, search


class Says(HistoryEngine):
    """Says these texts, one after another, whatever it is asked."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self.texts = texts
        self.said = 0

    def _answer(self, request: GenerationRequest) -> Generation:
        text = self.texts[self.said % len(self.texts)]
        self.said += 1
        ids = (*map(ord, text), 2)
        return Generation(ids, tuple(-0.5 for _ in ids), "stop", len(request.prompt_ids), 3)


class Room(Environment):
    """A counter that says "ok" to whatever is added, and nothing else."""

    def tasks(self, split: str) -> list[Task]:
        return []

    def reset(self, task: Task) -> str:
        self.count = 0
        return "count"

    def step(self, action: str) -> StepResult:
        if action.strip().startswith("add"):
            self.count += int(action.split()[1])
        return StepResult("ok" if "add" in action else "what?")


class OpenRoom(Room):
    """Shows its state to the search, not to the agent."""

    def snapshot(self) -> int:
        return self.count

    def restore(self, state: int) -> None:
        self.count = state


async def expanded(environment: type[Environment], deduplicate: Any, *texts: str) -> list[tuple[str, int, Spent]]:
    settings = mcts(simulations=1, width=len(texts), depth=1, expansion={"deduplicate": deduplicate}, concurrency=1)
    (tree,), _ = await search(settings, environment, engine=Says(*texts), count=1)
    return [(turn.text, turn.draw.copies, turn.spent) for turn in tree.turns]


async def test_candidates_that_did_the_same_are_one_whatever_their_spelling() -> None:
    found = await expanded(Room, "effect", "add 1", "hm", "add 1 ", "add 1", "eh?")
    prompt = len('\x01system\nA counter that says "ok" to whatever is added, and nothing else.\x02\x01user\ncount\x02\x01assistant\n')
    assert found == [
        ("add 1", 3, Spent(requests=2, prompt=2 * prompt, cached=6, generated=6 + 7)),
        ("hm", 2, Spent(requests=1, prompt=prompt, cached=3, generated=4)),
    ]


async def test_an_equal_answer_in_another_state_is_another_effect_where_the_environment_shows_its_state() -> None:
    texts = ("add 1", "add 2", "add 01", "add 2")
    assert [(text, copies) for text, copies, _ in await expanded(OpenRoom, "effect", *texts)] == [("add 1", 2), ("add 2", 2)]
    assert [(text, copies) for text, copies, _ in await expanded(Room, "effect", *texts)] == [("add 1", 4)]


async def test_equal_actions_alone_are_one_if_that_is_asked_for_and_none_if_that_is() -> None:
    texts = ("add 1", "add 01", "add 1")
    assert [(text, copies) for text, copies, _ in await expanded(OpenRoom, "action", *texts)] == [("add 1", 2), ("add 01", 1)]
    assert await expanded(OpenRoom, "none", *texts) == [(text, 1, Spent()) for text in texts]


async def test_states_that_cannot_be_compared_are_different() -> None:
    class Odd(OpenRoom):
        def snapshot(self) -> Any:
            class Array:
                def __init__(self, count: int) -> None:
                    self.count = count

                def __eq__(self, other: object) -> Any:
                    raise ValueError("the truth value of an array is ambiguous")

                __hash__ = None  # type: ignore[assignment]

            return Array(self.count)

        def restore(self, state: Any) -> None:
            self.count = state.count

    assert [text for text, _, _ in await expanded(Odd, "effect", "add 1", "add 01", "add 1")] == ["add 1", "add 01"]


async def test_equal_actions_are_played_once() -> None:
    played: list[str] = []

    class Watched(Room):
        def step(self, action: str) -> StepResult:
            played.append(action)
            return super().step(action)

    await expanded(Watched, "effect", "add 1", "add 1", "hm", "add 1")
    assert sorted(played) == ["add 1", "hm"]


class Menu(Room):
    """Lists what may be said; "end" ends."""

    LISTED: Sequence[str] | None = ("add 1", "add 2", "hm", "end", "add 1")

    def actions(self) -> Sequence[str] | None:
        return self.LISTED

    def step(self, action: str) -> StepResult:
        result = super().step(action)
        return StepResult(f"{result.observation} {self.count}", float(action == "end"), action == "end")


async def test_admissible_actions_are_scored_by_the_policy_and_not_generated() -> None:
    engine = HistoryEngine()
    settings = mcts(simulations=1, width=2, depth=2, temperature=0.0, expansion={"draw": "admissible", "deduplicate": "none"})
    (tree,), report = await search(settings, Menu, engine=engine, count=1)
    assert not engine.requests and report.generated_tokens == 0
    first = tree.children(None)
    assert len(first) == 2 and not report.failures
    for turn in first:
        assert (turn.draw.kind, turn.draw.has_ratio, turn.finish, turn.text) == ("admissible", False, "stop", turn.action)
        assert turn.completion_ids == (*map(ord, turn.text), 2)
        context = tuple(tree.context_ids(turn.id)) + turn.completion_ids
        length = len(turn.completion_ids)
        assert turn.logprobs == tuple(
            -1.0 - dice("score", context[: position + 1]) for position in range(len(context) - length, len(context))
        )
    scores = {}
    for action in Menu.LISTED or ():
        context = (*first[0].prompt_ids, *map(ord, action), 2)
        scores[action] = sum(-1.0 - dice("score", context[: position + 1]) for position in range(len(first[0].prompt_ids), len(context)))
    assert [turn.text for turn in first] == sorted(scores, key=lambda action: -scores[action])[:2]


async def test_what_scoring_cost_is_in_the_ledger() -> None:
    settings = mcts(simulations=1, width=2, depth=1, expansion={"draw": "admissible"})
    (tree,), _ = await search(settings, Menu, count=1)
    context = len(tree.turns[0].prompt_ids)
    tokens = Ledger.of_trees([tree], "trees").total()
    actions = ("add 1", "add 2", "hm", "end")
    assert tokens.turns == 4 and tokens.generated == 0
    assert tokens.prompt == sum(context + len(action) + 1 for action in actions)


async def test_no_admissible_action_is_a_dead_end() -> None:
    class Stuck(Menu):
        def actions(self) -> Sequence[str]:
            return () if self.count else ("add 1", "hm")

    (tree,), report = await search(mcts(simulations=4, width=2, depth=3, expansion={"draw": "admissible"}), Stuck, count=1)
    stuck = [turn for turn in tree.turns if turn.truncated == "environment"]
    assert stuck and all(turn.text == "add 1" and not tree.children(turn.id) for turn in stuck) and not report.failures


async def test_an_environment_that_admits_nothing_at_its_start_is_a_failure() -> None:
    class Closed(Menu):
        LISTED = ()

    with pytest.raises(RunFailed, match="admits no action at its start"):
        await search(mcts(expansion={"draw": "admissible"}), Closed)


async def test_an_environment_that_does_not_list_its_actions_says_what_to_do() -> None:
    with pytest.raises(RunFailed, match=r"does not list its admissible actions.*define actions\(\) in it"):
        await search(mcts(expansion={"draw": "admissible"}), Room)


def test_choosing_without_replacement_follows_the_scores() -> None:
    scores = [math.log(0.6), math.log(0.3), math.log(0.1)]
    assert choose(scores, 2, temperature=0.0, seed=1) == [0, 1]
    assert choose([0.0, 0.0, 0.0], 2, temperature=0.0, seed=1) == [0, 1]
    draws = [choose(scores, 2, temperature=1.0, seed=seed) for seed in range(4000)]
    assert all(len(set(draw)) == 2 for draw in draws)
    first = [sum(draw[0] == position for draw in draws) / len(draws) for position in range(3)]
    assert first == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    second = sum(draw == [0, 1] for draw in draws) / len(draws)
    assert second == pytest.approx(0.6 * 0.3 / 0.4, abs=0.03)  # renormalised over what is left
    sharp = [choose(scores, 1, temperature=0.25, seed=seed)[0] for seed in range(4000)]
    assert sharp.count(0) / len(sharp) == pytest.approx(0.6**4 / (0.6**4 + 0.3**4 + 0.1**4), abs=0.03)


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in (lambda: Expansion(width=0), lambda: Limits(tokens=0), lambda: Limits(seconds=0.0)):
        with pytest.raises(Mistake, match="too small"):
            wrong()
    with pytest.raises(Mistake, match="simulations of a tree search is too small"):
        mcts(simulations=0)
    with pytest.raises(Mistake, match="exploration of a tree search is negative"):
        mcts(exploration=-1.0)
