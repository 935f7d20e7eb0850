"""The search of a task against a brute-force twin, and what must hold of it whatever the settings, the order and the environment."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.environment.base import Environment, StepResult, Task
from agentloop.sampling.search.settings import Limits, MctsSettings
from agentloop.sampling.seed import derive, request_seed
from agentloop.trace.hash import content_hash
from agentloop.trace.ledger import Ledger
from agentloop.trace.search_statistics import search_statistics
from agentloop.trace.tree import Tree
from tests.sampling.search_world import Game, HistoryEngine, Photographed, mcts, said, search


@dataclass
class Twin:
    """A node of the twin: the published search (mcts_raw.py of Agent-R) written down again, without engine, tokens or asynchrony."""

    id: str
    state: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    total: float = 0.0
    parent: Twin | None = None
    children: list[Twin] = field(default_factory=list)
    visits: int = 0
    value: float = 0.0
    copies: int = 1
    terminal: bool = False
    depth: int = 0

    def everything(self) -> list[Twin]:
        return [self, *(node for child in self.children for node in child.everything())]


def twin_search(rules: int, seed: int, mine: MctsSettings, *, states: bool) -> Twin:
    root = Twin("")
    for simulation in range(mine.simulations):
        node: Twin | None = root
        while node is not None and not node.terminal:
            if not node.children:
                twin_expand(node, rules, seed, mine, states=states)
            while node is not None and node.children:
                node = twin_best_child(node, simulation, seed, mine.exploration)
    return root


def twin_expand(node: Twin, rules: int, seed: int, mine: MctsSettings, *, states: bool) -> None:
    effects: dict[Any, Twin] = {}
    for number in range(mine.expansion.width):
        action = said(node.history, request_seed(derive(seed, "expand", node.id), number))
        state, observation, reward, done = Game.move(rules, node.state, action)
        effect = (observation, reward, done, state if states and not done else None)
        if effect in effects:
            effects[effect].copies += 1
            continue
        value = 0.0 if reward < 0 else node.total + reward
        child = Twin(f"{node.id}.{number}".lstrip("."), state, (*node.history, action), value, node, depth=node.depth + 1)
        child.terminal = done or reward < 0 or child.depth >= mine.sample.max_turns
        effects[effect] = child
        node.children.append(child)
    for child in node.children:
        if child.terminal:
            above: Twin | None = child
            while above is not None:
                above.visits += 1
                above.value += child.total
                if above.children:
                    above.terminal = all(one.terminal for one in above.children)
                above = above.parent


def twin_best_child(node: Twin, simulation: int, seed: int, exploration: float) -> Twin | None:
    scores: list[tuple[float, Twin]] = []
    for child in node.children:
        if not child.terminal:
            score = math.inf
            if child.visits:
                score = child.value / child.visits + exploration * math.sqrt(math.log(node.visits) / child.visits)
            scores.append((score, child))
    if not scores:
        node.terminal = True
        return None
    best = [child for score, child in scores if score == max(score for score, _ in scores)]
    return min(best, key=lambda child: derive(seed, "tie", simulation, child.id))


@settings(max_examples=60)
@given(
    rules=st.integers(0, 500),
    simulations=st.integers(1, 10),
    width=st.integers(1, 4),
    depth=st.integers(1, 6),
    exploration=st.sampled_from([0.0, 0.25, 1.5]),
    environment=st.sampled_from([Game, Photographed]),
)
def test_the_twin_agrees_visit_by_visit(
    rules: int, simulations: int, width: int, depth: int, exploration: float, environment: type[Environment]
) -> None:
    mine = mcts(simulations=simulations, width=width, depth=depth, exploration=exploration)
    (tree,), _ = asyncio.run(search(mine, environment, first=rules % 20, count=1))
    root = twin_search(tree.task_data["rules"], tree.seed, mine, states=environment is Photographed)
    found = search_statistics(tree)
    expected = {node.id: (node.visits, node.value / node.visits if node.visits else None) for node in root.everything() if node.id}
    assert {name: (known.visits, known.value) for name, known in found.items()} == expected
    for node in root.everything()[1:]:
        turn = tree[node.id]
        assert (turn.action, turn.parent or "", turn.draw.copies) == (node.history[-1], node.parent.id if node.parent else "", node.copies)
        ended = turn.done or turn.truncated in ("turns", "disaster")
        assert node.terminal == ended or node.children


def hashes(trees: list[Tree]) -> list[str]:
    return [content_hash(tree) for tree in trees]


@settings(max_examples=25)
@given(
    delays=st.integers(0, 10**6),
    leaves=st.integers(1, 4),
    concurrency=st.integers(1, 9),
    limit=st.integers(1, 4),
    tokens=st.sampled_from([None, 12, 40]),
    environment=st.sampled_from([Game, Photographed]),
)
def test_the_result_does_not_depend_on_who_comes_back_first(
    delays: int, leaves: int, concurrency: int, limit: int, tokens: int | None, environment: type[Environment]
) -> None:
    mine = mcts(leaves=leaves, limits=Limits(tokens=tokens))
    expected, _ = asyncio.run(search(mine, environment))
    other = replace(mine, sample=replace(mine.sample, concurrency=concurrency))
    found, report = asyncio.run(search(other, environment, engine=HistoryEngine(delays), limit=limit))
    assert hashes(found) == hashes(expected)
    assert report.most_at_engine <= concurrency


async def test_several_leaves_a_tree_keep_more_requests_at_the_engine() -> None:
    wide = mcts(simulations=8, leaves=4, width=2, concurrency=16)
    narrow = replace(wide, leaves=1)
    _, one = await search(narrow, Endless, engine=HistoryEngine(1), count=1)
    _, many = await search(wide, Endless, engine=HistoryEngine(1), count=1)
    assert one.most_at_engine == 2 < many.most_at_engine <= 8


class Endless(Game):
    """Nothing ever ends."""

    ENDS = DISASTERS = 0.0


@settings(max_examples=40)
@given(
    simulations=st.integers(1, 6),
    width=st.integers(1, 4),
    depth=st.integers(1, 4),
    leaves=st.integers(1, 5),
    tokens=st.none() | st.integers(1, 60),
    until_win=st.booleans(),
    deduplicate=st.sampled_from(["effect", "action", "none"]),
    ends=st.sampled_from([0.0, 0.3, 1.0]),
    disasters=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_what_holds_of_every_search(
    simulations: int,
    width: int,
    depth: int,
    leaves: int,
    tokens: int | None,
    until_win: bool,
    deduplicate: Any,
    ends: float,
    disasters: float,
) -> None:
    class Other(Game):
        ENDS = ends
        DISASTERS = disasters

    limits = Limits(tokens=tokens, until_win=until_win)
    mine = mcts(simulations=simulations, width=width, depth=depth, leaves=leaves, limits=limits, expansion={"deduplicate": deduplicate})
    engine = HistoryEngine(3)
    trees, report = asyncio.run(search(mine, Other, engine=engine, count=2))
    assert not report.failures and report.finished == 2
    requests = {(request.prompt_ids, request.seed): request for request in engine.requests}
    for tree in trees:
        known = search_statistics(tree)
        assert set(known) == {turn.id for turn in tree.turns}
        assert len(tree.samples) <= simulations
        for turn in tree.turns:
            # Exact tokens: the stored context is the prompt of the very request that the completion answered.
            request = requests[tuple(tree.context_ids(turn.id)), turn.draw.seed]
            assert engine.answers[request].ids == turn.completion_ids and engine.answers[request].logprobs == turn.logprobs
            assert turn.draw.kind == ("uct" if deduplicate == "none" else "deduplicated")
            children = tree.children(turn.id)
            assert len(children) <= width and sum(child.draw.copies for child in children) in (0, width)
            assert not (children and (turn.done or turn.truncated)), "an end was expanded"
            # Values are backed up from ends, and every end counts once for each node above it.
            ends_below = [
                leaf for leaf in tree.leaves() if turn in tree.path(leaf.id) and (leaf.done or leaf.truncated in ("turns", "disaster"))
            ]
            assert known[turn.id].visits == len(ends_below)
        for leaf in tree.leaves():
            assert len(tree.path(leaf.id)) <= depth
            assert leaf.done or leaf.truncated in ("turns", "disaster", "budget")
            assert leaf.success is (leaf.done and tree.episode_return(leaf.id) > 0.8)
        if until_win and any(turn.success for turn in tree.turns):
            assert len([turn for turn in tree.turns if turn.success]) <= leaves * width
    ledger = Ledger.of_trees(trees, "trees").total()
    assert ledger.turns == len(engine.requests) and ledger.prompt == sum(len(request.prompt_ids) for request in engine.requests)
    assert ledger.generated == sum(len(answer.ids) for answer in engine.answers.values()) == report.generated_tokens
    assert ledger.cached == report.cached_tokens and ledger.prompt == report.prompt_tokens


async def test_a_token_budget_stops_after_the_wave_that_used_it_up() -> None:
    free, _ = await search(mcts(simulations=8, leaves=2, depth=8), Endless, count=4)
    bound, report = await search(mcts(simulations=8, leaves=2, depth=8, limits=Limits(tokens=60)), Endless, count=4)
    spent = [Ledger.of_trees([tree], "trees").total().generated for tree in bound]
    most_a_wave = 2 * 3 * 8
    assert all(60 <= used < 60 + most_a_wave for used in spent)
    assert all(Ledger.of_trees([tree], "trees").total().generated > used for tree, used in zip(free, spent, strict=True))
    assert report.truncated.keys() == {"budget"}


async def test_a_time_budget_cuts_what_is_open() -> None:
    trees, report = await search(mcts(simulations=8, limits=Limits(seconds=1e-9)), Endless)
    assert report.truncated["time"] and all(len(tree.path(leaf.id)) == 1 for tree in trees for leaf in tree.leaves())


async def test_a_win_can_end_it() -> None:
    class Won(Game):
        ENDS, DISASTERS = 1.0, 0.0

        def success(self, total_reward: float) -> bool:
            return True

    class Long(Won):
        @classmethod
        def move(cls, rules: int, state: tuple[str, ...], action: str) -> Any:
            new, observation, reward, _ = super().move(rules, state, action)
            return new, observation, reward, len(new) == 3 or action == "stay"

    everything, _ = await search(mcts(simulations=20, depth=4), Long)
    trees, report = await search(mcts(simulations=20, depth=4, limits=Limits(until_win=True)), Long)
    assert report.succeeded == 3 and all(any(turn.success for turn in tree.turns) for tree in trees)
    assert sum(len(tree.turns) for tree in trees) < sum(len(tree.turns) for tree in everything)


async def test_a_search_ends_when_every_path_has() -> None:
    class Short(Game):
        ENDS, DISASTERS = 1.0, 0.0

    trees, report = await search(mcts(simulations=8), Short)
    assert report.simulations == 3 and all(tree.samples == (0,) for tree in trees), "one walk, which closes the root"
    assert all(leaf.done for tree in trees for leaf in tree.leaves())


async def test_a_negative_reward_ends_a_path_with_nothing_and_is_flagged() -> None:
    class Bad(Game):
        ENDS, DISASTERS = 0.0, 1.0

        @classmethod
        def move(cls, rules: int, state: tuple[str, ...], action: str) -> Any:
            return (*state, action), f"ouch {action}", -5.0, False

    (tree,), report = await search(mcts(), Bad, count=1)
    assert report.truncated == {"disaster": len(tree.turns)}
    assert all(turn.reward == -5.0 and turn.success is False and not turn.done for turn in tree.turns)
    assert {known.value for known in search_statistics(tree).values()} == {0.0}
    (free,), _ = await search(mcts(expansion={"disasters": False}), Bad, count=1)
    assert any(len(free.path(turn.id)) > 1 for turn in free.turns)


class Circle(Photographed):
    """Three places in a ring: "a" goes on, "b" goes back, anything else stays."""

    @classmethod
    def move(cls, rules: int, state: tuple[str, ...], action: str) -> Any:
        place = (len(state) + {"a": 1, "b": -1}.get(action.lower(), 0)) % 3
        return ("x",) * place, f"place {place}, after {action.lower()}", 0.0, False


async def test_a_path_that_leads_back_to_its_own_states_can_end_there() -> None:
    (free,), _ = await search(mcts(simulations=8, depth=6, width=6), Circle, count=1)
    assert all(turn.truncated != "loop" for turn in free.turns)
    (tree,), report = await search(mcts(simulations=8, depth=6, width=6, expansion={"revisits": "end"}), Circle, count=1)
    assert report.truncated["loop"] and max(len(tree.path(leaf.id)) for leaf in tree.leaves()) == 3
    known = search_statistics(tree)
    for turn in tree.turns:
        places = [0, *(int((one.observation or "").split(",")[0].split()[1]) for one in tree.path(turn.id))]
        assert (turn.truncated == "loop") == (places[-1] in places[:-1])
        if turn.truncated == "loop":
            assert (known[turn.id].visits, known[turn.id].value, turn.success) == (1, 0.0, False)


async def test_without_snapshots_nothing_tells_that_a_state_is_met_again() -> None:
    class Blind(Circle):
        def snapshot(self) -> None:
            return None

    _, report = await search(mcts(simulations=8, depth=4, width=6, expansion={"revisits": "end"}), Blind)
    assert set(report.truncated) <= {"turns", "budget"}


async def test_a_full_context_ends_a_path_at_the_turn_that_still_fitted() -> None:
    class Wordy(Endless):
        def step(self, action: str) -> StepResult:
            result = super().step(action)
            return StepResult(result.observation + "x" * 50, 0.25)

    trees, report = await search(mcts(simulations=6, depth=20, width=2), Wordy, engine=HistoryEngine(max_model_len=400))
    assert report.truncated["context"] and "turns" not in report.truncated and not report.failures
    for tree in trees:
        known = search_statistics(tree)
        for turn in tree.turns:
            if turn.truncated == "context":
                assert not tree.children(turn.id) and known[turn.id].visits == 1
                assert known[turn.id].value == tree.episode_return(turn.id)


async def test_summaries_are_written_once_a_node_and_are_no_nodes() -> None:
    class Wordy(Endless):
        def step(self, action: str) -> StepResult:
            result = super().step(action)
            return StepResult(result.observation + "x" * 60, 0.0)

    engine = HistoryEngine(5, max_model_len=700)
    mine = mcts(simulations=3, depth=8, width=2, overflow="summarise")
    trees, report = await search(mine, Wordy, engine=engine)
    summaries = [(tree, turn) for tree in trees for turn in tree.turns if turn.id.endswith(".s")]
    assert summaries and report.fresh["summary"] and not report.failures
    requests = {(request.prompt_ids, request.seed) for request in engine.requests}
    for tree, turn in summaries:
        assert turn.action is None and turn.id not in search_statistics(tree)
        assert {child.fresh for child in tree.children(turn.id)} == {"summary"}
    for tree in trees:
        assert all((tuple(tree.context_ids(turn.id)), turn.draw.seed) in requests for turn in tree.turns)
        assert all(sum(turn.action is not None for turn in tree.path(leaf.id)) <= 8 for leaf in tree.leaves())
    again, _ = await search(mine, Wordy, engine=HistoryEngine(99, max_model_len=700))
    assert hashes(again) == hashes(trees)


async def test_greedy_decoding_draws_once() -> None:
    engine = HistoryEngine()
    (tree,), _ = await search(mcts(temperature=0.0, width=4, depth=3), Endless, engine=engine, count=1)
    assert len(tree.turns) == len(engine.requests) == 3 and all(turn.draw.copies == 1 for turn in tree.turns)


@pytest.mark.parametrize("environment", [Game, Photographed])
async def test_snapshots_spare_the_replay_and_change_nothing(environment: type[Environment]) -> None:
    mine = mcts(simulations=6, depth=6)
    trees, report = await search(mine, environment)
    assert hashes(trees) == hashes((await search(mine, Game))[0])
    steps = sum(len(tree.turns) for tree in trees)
    if environment is Photographed:
        assert report.replayed == 0 and report.restored >= steps
    else:
        assert report.restored == 0 and report.replayed > 0


class Drifting(Game):
    """Forgets, after some episodes, what it once answered: its observations change with the number of resets."""

    ENDS = DISASTERS = 0.0
    FROM = 6
    resets = 0

    def reset(self, task: Task) -> str:
        type(self).resets += 1
        return super().reset(task)

    def step(self, action: str) -> StepResult:
        result = super().step(action)
        drifted = type(self).resets > self.FROM and len(self.state) == 1
        return StepResult(result.observation + (f" {self.resets}" if drifted else ""), result.reward, result.done)


async def test_a_divergence_is_counted_closes_the_node_and_never_passes_for_a_child() -> None:
    Drifting.resets = 0
    trees, report = await search(mcts(simulations=6, depth=4, max_failures=1.0, retries=1), Drifting, count=1)
    (tree,) = trees
    assert set(report.failures) == {"environment.divergence"} == set(report.retried)
    assert "does not repeat itself" in report.first_failures["environment.divergence"].message
    broken = {failure.turn for failure in tree.failures}
    assert len(tree.failures) == report.failures["environment.divergence"] and broken
    for name in broken:
        assert name is not None and tree[name].observation is None and name not in search_statistics(tree)
        assert not tree.children(name)


@settings(max_examples=15)
@given(start=st.integers(0, 40), simulations=st.integers(1, 6), delays=st.integers(0, 1000))
def test_whenever_an_environment_begins_to_drift_the_search_ends_and_tells(start: int, simulations: int, delays: int) -> None:
    class Later(Drifting):
        FROM = start
        resets = 0

    mine = mcts(simulations=simulations, depth=3, max_failures=1.0, retries=0, leaves=2)
    (tree,), report = asyncio.run(search(mine, Later, engine=HistoryEngine(delays), count=1))
    assert sum(report.failures.values()) == len(tree.failures)
    for turn in tree.turns:
        assert turn.observation is not None or any(failure.turn == turn.id for failure in tree.failures)


async def test_too_many_divergences_stop_the_stage() -> None:
    from agentloop.errors import RunFailed

    Drifting.resets = 0
    with pytest.raises(RunFailed, match=r"candidates failed, more than max_failures allows \(0.1\): environment.divergence"):
        await search(mcts(simulations=6, depth=6, max_failures=0.1, retries=0), Drifting)


async def test_each_request_has_a_seed_of_its_own() -> None:
    engine = HistoryEngine()
    await search(mcts(simulations=6), engine=engine, count=4)
    seeds = [request.seed for request in engine.requests]
    assert len(set(seeds)) == len(seeds)
