"""Leaves that a critic or a rollout values: what is asked, what is backed up, and what the tree keeps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from agentloop.engine.base import EngineFailure, GenerationRequest
from agentloop.environment.base import StepResult, Task
from agentloop.sampling.search.settings import Limits
from agentloop.trace.hash import content_hash
from agentloop.trace.ledger import Ledger
from agentloop.trace.search_statistics import search_statistics
from agentloop.trace.tree import Draw, Tree, Turn, Verdict
from tests.sampling.search_world import Game, HistoryEngine, dice, mcts, search


class Endless(Game):
    ENDS = DISASTERS = 0.0


class Judge:
    """Values a path by a hash of its actions, with a turn of its own; remembers what it saw."""

    def __init__(self, unreadable: float = 0.0) -> None:
        self.seen: list[tuple[Tree, str]] = []
        self.unreadable = unreadable

    async def __call__(self, tree: Tree, turn: str, *, seed: int) -> tuple[Verdict, Sequence[Turn]]:
        self.seen.append((tree, turn))
        said = tuple(one.text for one in tree.path(turn))
        value = None if dice("unreadable", said) < self.unreadable else round(dice("judge", said), 3)
        answer = Turn(
            f"{turn}?",
            turn,
            None,
            (5, 6),
            (7,),
            (-0.1,),
            str(value),
            Draw("critic-1", seed=seed),
            fresh="critic",
            seat="critic",
            role="critic",
        )
        return Verdict("oracle", turn, value, None if value is not None else "unparsable", (answer.id,)), (answer,)


async def test_a_critics_value_of_one_new_child_is_backed_up_and_ends_the_simulation() -> None:
    judge = Judge()
    (tree,), report = await search(mcts(simulations=6, width=3, depth=9), Endless, count=1, critic=judge)
    assert report.simulations == report.expansions == len(judge.seen) == 6
    assert sum(verdict.critic == "oracle" for verdict in tree.verdicts) == 6
    known = search_statistics(tree)
    for turn in tree.turns:
        if turn.seat == "critic":
            continue
        below = [
            verdict.value
            for verdict in tree.verdicts
            if verdict.critic == "oracle" and any(one.id == turn.id for one in tree.path(verdict.turn))
        ]
        assert known[turn.id].visits == len(below)
        assert not below or abs((known[turn.id].value or 0.0) - sum(filter(None, below)) / len(below)) < 1e-12
    assert Ledger.of_trees([tree], "trees").total().judged == 6 * 3


async def test_paths_that_the_critic_looked_at_are_cut_like_any_others_when_the_search_ends() -> None:
    (tree,), _ = await search(mcts(simulations=4, width=3, depth=9), Endless, count=1, critic=Judge())
    judged = {verdict.turn for verdict in tree.verdicts if verdict.critic == "oracle"}
    open_ends = {turn.id for turn in tree.turns if turn.seat == "actor" and not any(one.seat == "actor" for one in tree.children(turn.id))}
    assert judged & open_ends and judged - open_ends
    assert all((tree[turn].truncated, tree[turn].success) == ("budget", False) for turn in open_ends)


async def test_a_critic_sees_the_path_and_nothing_else() -> None:
    judge = Judge()
    (tree,), _ = await search(mcts(simulations=4), Endless, count=1, critic=judge)
    for seen, turn in judge.seen:
        assert seen.turns == tuple(one for one in tree.turns if one in tree.path(turn)) or len(seen.turns) == len(tree.path(turn))
        assert (seen.first_observation, seen.system_prompt, seen.task) == (tree.first_observation, tree.system_prompt, tree.task)


async def test_a_verdict_that_could_not_be_read_is_kept_and_not_counted_as_a_visit() -> None:
    (tree,), _ = await search(mcts(simulations=5), Endless, count=1, critic=Judge(unreadable=1.0))
    assert {known.visits for known in search_statistics(tree).values()} == {0}
    assert [verdict.label for verdict in tree.verdicts if verdict.critic == "oracle"] == ["unparsable"] * 5


async def test_a_critic_that_breaks_is_asked_again_and_then_counted() -> None:
    asked = itertools.count()

    async def broken(tree: Tree, turn: str, *, seed: int) -> tuple[Verdict, Sequence[Turn]]:
        next(asked)
        raise EngineFailure("timeout", "the critic slept")

    trees, report = await search(mcts(simulations=2, max_failures=1.0, retries=1), Endless, count=1, critic=broken)
    assert report.failures == {"engine.timeout": 2} and report.retried == {"engine.timeout": 2} and next(asked) == 4
    assert len(trees) == 1


async def test_a_rollout_plays_on_to_the_end_and_its_return_is_the_value() -> None:
    engine = HistoryEngine()
    settings = mcts(simulations=5, width=2, depth=6)
    (tree,), report = await search(settings, Game, engine=engine, count=1, first=3, rollout="base")
    known = search_statistics(tree)
    rolled = [turn for turn in tree.turns if "~" in turn.id]
    assert rolled and not report.failures
    requests = {(request.prompt_ids, request.seed): request for request in engine.requests}
    for turn in rolled:
        assert turn.draw.kind == "policy" and turn.id not in known
        assert (tuple(tree.context_ids(turn.id)), turn.draw.seed) in requests
    for leaf in tree.leaves():
        assert len(tree.path(leaf.id)) <= 6
        assert leaf.done or leaf.truncated
        if "~" not in leaf.id and not leaf.done:
            assert leaf.truncated in ("budget", "turns", "disaster")
    for turn in tree.turns:
        if turn.id in known and not turn.done and turn.truncated not in ("turns", "disaster"):
            ends = [leaf for leaf in tree.leaves() if turn in tree.path(leaf.id)]
            values = [max(0.0, tree.episode_return(leaf.id)) for leaf in ends if leaf.truncated != "budget"]
            assert known[turn.id].visits == len(values)
            assert not values or abs((known[turn.id].value or 0.0) - sum(values) / len(values)) < 1e-12
    assert all(turn.truncated is None and turn.success is None for turn in tree.turns if tree.children(turn.id))
    tokens = Ledger.of_trees([tree], "trees").total()
    assert tokens.generated == sum(len(answer.ids) for answer in engine.answers.values()) and tokens.turns == len(engine.requests)


async def test_rollouts_and_critics_do_not_depend_on_the_order_either() -> None:
    for options in ({"rollout": "base"}, {"critic": Judge()}):
        settings = mcts(simulations=6, leaves=3, depth=5)
        expected, _ = await search(settings, Game, **options)
        for delays in (1, 2, 3):
            found, _ = await search(settings, Game, engine=HistoryEngine(delays), **options)
            assert [content_hash(tree) for tree in found] == [content_hash(tree) for tree in expected]


async def test_a_rollout_that_wins_can_end_the_search() -> None:
    class Late(Game):
        ENDS = DISASTERS = 0.0

        @classmethod
        def move(cls, rules: int, state: tuple[str, ...], action: str) -> tuple[tuple[str, ...], str, float, bool]:
            new = (*state, action.lower())
            return new, f"at {' '.join(new)}", float(len(new) == 4), len(new) == 4

    trees, report = await search(mcts(simulations=9, depth=6, limits=Limits(until_win=True)), Late, rollout="base")
    assert report.succeeded == 3 and report.simulations == 3
    assert all(tree["".join(turn.id)].done for tree in trees for turn in tree.turns if turn.success)


async def test_a_rollout_that_breaks_keeps_its_turns_and_counts() -> None:
    class Fragile(Endless):
        def step(self, action: str) -> StepResult:
            if len(self.state) == 3:
                raise RuntimeError("snapped")
            return super().step(action)

        def reset(self, task: Task) -> str:
            return super().reset(task)

    (tree,), report = await search(mcts(simulations=1, depth=6, max_failures=1.0, retries=0), Fragile, count=1, rollout="base")
    assert report.failures == {"environment.step": 1}
    (failure,) = tree.failures
    assert failure.turn is not None and "~" in failure.turn and tree[failure.turn].observation is None
    assert {known.visits for known in search_statistics(tree).values()} == {0}


async def test_the_rollouts_role_and_adapter_are_its_own() -> None:
    engine = HistoryEngine()
    players = {"adapter": "actor-0-a", "rollout": "base", "rollout_role": "player"}
    (tree,), _ = await search(mcts(simulations=2), Game, engine=engine, count=1, first=3, **players)
    asked: list[GenerationRequest] = engine.requests
    assert {request.adapter for request in asked} == {"actor-0-a", "base"}
    for turn in tree.turns:
        assert (turn.role, turn.draw.adapter) == (("player", "base") if "~" in turn.id else ("actor", "actor-0-a"))
