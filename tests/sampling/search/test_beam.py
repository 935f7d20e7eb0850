"""Beam search and best-of-n: which candidates are kept, and what the trees tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agentloop.engine.base import EngineFailure
from agentloop.environment.base import StepResult
from agentloop.sampling.group import sample_groups
from agentloop.sampling.search.beam import best
from agentloop.sampling.search.settings import BeamSettings, BestOfNSettings, Expansion, Limits
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.hash import content_hash
from agentloop.trace.ledger import Ledger
from agentloop.trace.render import Renderer
from agentloop.trace.tree import Tree, Turn, Verdict
from tests.sampling.search_world import Game, HistoryEngine, Photographed, search, tasks
from tests.sampling.world import ORIGIN, CharacterTokenizer, Memory, pool_of


class Endless(Game):
    ENDS = DISASTERS = 0.0


async def letters(tree: Tree, turn: str, *, seed: int) -> tuple[Verdict, Sequence[Turn]]:
    """Likes lower case, and "a" best."""
    text = tree[turn].text
    return Verdict("letters", turn, 2.0 if text == "a" else float(text.islower())), ()


def beam_settings(width: int = 2, branch: int = 3, depth: int = 4, limits: Limits | None = None, **expansion: Any) -> BeamSettings:
    sample = SampleSettings(max_turns=depth, max_tokens=8, concurrency=8, max_failures=1.0, retries=0)
    return BeamSettings(sample, width, Expansion(width=branch, **expansion), limits or Limits())


def n_settings(width: int = 4, depth: int = 4, limits: Limits | None = None, **sample: Any) -> BestOfNSettings:
    options = {"max_turns": depth, "max_tokens": 8, "concurrency": 8, "max_failures": 1.0, "retries": 0, **sample}
    return BestOfNSettings(SampleSettings(**options), width, limits or Limits())


def test_the_best_come_first_and_equals_in_an_order_of_the_seed() -> None:
    assert best({"a": 1.0, "b": 3.0, "c": 2.0}, 2, seed=1) == ["b", "c"]
    orders = {tuple(best(dict.fromkeys("abc", 0.0), 3, seed=seed)) for seed in range(50)}
    assert len(orders) == 6
    assert best({}, 2, seed=1) == []


async def test_the_beam_keeps_the_best_of_each_level_and_goes_on_with_them_alone() -> None:
    trees, report = await search(beam_settings(), Endless, critic=letters)
    assert report.simulations == 3 * 4
    for tree in trees:
        level = list(tree.children(None))
        for depth in range(1, 5):
            score = {verdict.turn: verdict.value or 0.0 for verdict in tree.verdicts}
            went_on = [turn for turn in level if tree.children(turn.id)]
            assert len(went_on) <= 2
            if depth < 4:
                assert len(went_on) == min(2, len(level))
                left = [score[turn.id] for turn in level if turn not in went_on]
                assert not left or min(score[turn.id] for turn in went_on) >= max(left)
                assert all(turn.truncated == "budget" and turn.success is False for turn in level if turn not in went_on)
            else:
                assert all(turn.truncated == "turns" for turn in level)
            level = [child for turn in went_on for child in tree.children(turn.id)]


async def test_without_a_critic_the_return_so_far_decides() -> None:
    class Paid(Endless):
        def step(self, action: str) -> StepResult:
            result = super().step(action)
            return StepResult(result.observation, float(action == "stay"))

    trees, _ = await search(beam_settings(width=1, branch=6), Paid)
    for tree in trees:
        for turn in tree.turns:
            siblings = tree.children(turn.parent)
            if tree.children(turn.id):
                assert turn.reward == max(one.reward for one in siblings)


async def test_beam_and_best_of_n_do_not_depend_on_the_order() -> None:
    for settings in (beam_settings(), n_settings(), n_settings(limits=Limits(tokens=20))):
        for options in ({}, {"critic": letters}):
            expected, _ = await search(settings, Game, **options)
            for delays in (1, 2, 3):
                found, _ = await search(settings, Photographed, engine=HistoryEngine(delays), **options)
                assert [content_hash(tree) for tree in found] == [content_hash(tree) for tree in expected]


async def test_kinds_of_draw_tell_that_the_path_was_selected() -> None:
    for settings, options, kinds in (
        (beam_settings(), {}, {"deduplicated"}),
        (beam_settings(deduplicate="none"), {}, {"beam"}),
        (n_settings(), {"critic": letters}, {"best_of_n"}),
        (n_settings(), {}, {"policy"}),
    ):
        trees, _ = await search(settings, Endless, **options)
        assert {turn.draw.kind for tree in trees for turn in tree.turns} == kinds


async def test_best_of_n_plays_the_critics_best_and_keeps_the_others_with_their_verdicts() -> None:
    engine = HistoryEngine()
    trees, report = await search(n_settings(width=5), Endless, engine=engine, critic=letters)
    for tree in trees:
        score = {verdict.turn: verdict.value or 0.0 for verdict in tree.verdicts}
        played = [turn for turn in tree.turns if turn.action is not None]
        assert len(played) == 4 and [turn.parent for turn in played[1:]] == [turn.id for turn in played[:-1]]
        for turn in tree.turns:
            assert score[turn.id] <= next(score[one.id] for one in played if one.parent == turn.parent)
            if turn.action is None:
                assert (turn.observation, turn.truncated, turn.success) == (None, "budget", False)
    tokens = Ledger.of_trees(trees, "trees").total()
    assert tokens.turns == len(engine.requests) and tokens.generated == report.generated_tokens
    assert report.duplicates > 0


async def test_best_of_n_without_a_critic_is_a_group() -> None:
    settings = n_settings(width=4)
    mine, _ = await search(settings, Game, count=3)
    sink = Memory()
    async with pool_of(Game) as pool:
        await sample_groups(
            tasks(3),
            engine=HistoryEngine(),
            pool=pool,
            renderer=Renderer(CharacterTokenizer()),
            sink=sink,
            settings=SampleSettings(samples=4, max_turns=4, max_tokens=8),
            origin=ORIGIN,
        )
    assert [content_hash(tree) for tree in mine] == [content_hash(tree) for tree in sink.trees()]


@pytest.mark.parametrize("critic", [None, letters])
async def test_a_token_budget_bounds_every_method(critic: Any) -> None:
    for settings in (beam_settings(depth=9, limits=Limits(tokens=20)), n_settings(width=9, depth=9, limits=Limits(tokens=20))):
        trees, report = await search(settings, Endless, critic=critic)
        spent = [Ledger.of_trees([tree], "trees").total().generated for tree in trees]
        wave = 8 * (6 if isinstance(settings, BeamSettings) else 9)
        assert all(20 <= used < 20 + wave for used in spent)
        assert report.truncated["budget"] and all(leaf.truncated for tree in trees for leaf in tree.leaves())


async def test_a_win_can_end_them() -> None:
    class Lucky(Game):
        ENDS, DISASTERS = 0.6, 0.0

        def success(self, total_reward: float) -> bool:
            return True

    for settings in (beam_settings(limits=Limits(until_win=True)), n_settings(width=8, limits=Limits(until_win=True))):
        trees, report = await search(settings, Lucky)
        assert report.succeeded >= 2
        if isinstance(settings, BestOfNSettings):
            assert all(sum(bool(turn.success) for turn in tree.turns) <= 1 for tree in trees)


async def test_a_critic_without_an_answer_leaves_the_choice_to_the_seed() -> None:
    async def broken(tree: Tree, turn: str, *, seed: int) -> tuple[Verdict, Sequence[Turn]]:
        raise EngineFailure("timeout", "asleep")

    trees, report = await search(n_settings(depth=2), Endless, critic=broken)
    assert report.failures["engine.timeout"] and len(trees) == 3
    assert all(sum(turn.action is not None for turn in tree.turns) == 2 for tree in trees)


async def test_an_episode_that_breaks_fails_its_tree_where_there_is_no_other() -> None:
    class Fragile(Endless):
        def step(self, action: str) -> StepResult:
            if len(self.state) == 1 and self.rules == 1:
                raise RuntimeError("snapped")
            return super().step(action)

    trees, report = await search(n_settings(), Fragile, critic=letters)
    assert report.finished == 2 and report.failures == {"environment.step": 1}
    assert [len(tree.failures) for tree in trees] == [0, 1, 0]
    trees, report = await search(n_settings(), Fragile)
    assert report.finished == 2 and report.failures == {"environment.step": 4}
    trees, report = await search(beam_settings(), Fragile)
    assert report.finished == 3 and report.failures["environment.step"] >= 2
