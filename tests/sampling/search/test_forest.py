"""Many trees at once: what is kept when, resume after a kill, failures, bounds, and the numbers of the report."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentloop.engine.base import EngineFailure, Generation, GenerationRequest
from agentloop.environment.base import Environment, StepResult, Task
from agentloop.errors import RunFailed
from agentloop.sampling.progress import Progress, Quiet
from agentloop.sampling.search.forest import search_trees
from agentloop.sampling.search.settings import BeamSettings, BestOfNSettings, Expansion, Limits
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.hash import content_hash, trees_hash
from agentloop.trace.render import Renderer
from agentloop.trace.store import TreeWriter, read_trees
from tests.sampling.search_world import Game, HistoryEngine, Photographed, mcts, search, tasks
from tests.sampling.world import ORIGIN, BrokenEngine, CharacterTokenizer, Memory, pool_of


class Blocks(HistoryEngine):
    """Answers so many requests, and no further one for ever."""

    def __init__(self, answers: int) -> None:
        super().__init__(7)
        self.left = answers
        self.blocked = asyncio.Event()

    async def generate(self, request: GenerationRequest) -> Generation:
        if not self.left:
            self.blocked.set()
            await asyncio.Event().wait()
        self.left -= 1
        return await super().generate(request)


async def into(path: Path, engine: Any, environment: type[Environment] = Game, count: int = 6, **options: Any) -> Any:
    async with pool_of(environment) as pool:
        with TreeWriter(path) as writer:
            report = await search_trees(
                tasks(count),
                engine=engine,
                pool=pool,
                renderer=Renderer(CharacterTokenizer()),
                sink=writer,
                settings=mcts(concurrency=3, **options),
                origin=ORIGIN,
            )
            writer.finish()
    return report


@pytest.mark.parametrize("answers", [0, 5, 25, 60, 90])
async def test_a_killed_search_loses_no_finished_tree_and_ends_as_an_uninterrupted_one(tmp_path: Path, answers: int) -> None:
    await into(tmp_path / "straight.parquet", HistoryEngine())
    path, engine = tmp_path / "killed.parquet", Blocks(answers)
    running = asyncio.create_task(into(path, engine))
    await engine.blocked.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    with TreeWriter(path) as writer:
        kept = {tree.id: content_hash(tree) for tree in writer.fragments()}
    second = HistoryEngine()
    report = await into(path, second)
    assert report.resumed == len(kept) and report.finished == 6 - len(kept)
    assert trees_hash(path) == trees_hash(tmp_path / "straight.parquet")
    whole = {tree.id: tree for tree in read_trees(path)}
    assert {name: content_hash(whole[name]) for name in kept} == kept
    again = {request.prompt_ids[:60] for request in second.requests}
    assert all(whole[name].turns[0].prompt_ids[:60] not in again for name in kept), "a finished tree was searched again"


async def test_a_kill_closes_the_environments() -> None:
    opened: list[Environment] = []
    closed: list[Environment] = []

    class Counted(Game):
        def __init__(self) -> None:
            opened.append(self)

        def close(self) -> None:
            closed.append(self)

    engine = Blocks(30)
    running = asyncio.create_task(search(mcts(), Counted, engine=engine))
    await engine.blocked.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert opened and len(closed) == len(opened)


async def test_each_tree_is_kept_when_it_ends_and_once() -> None:
    sink = Memory()
    trees, report = await search(mcts(), sink=sink, count=6)
    assert len(sink.fragments) == len(trees) == report.finished == report.episodes == 6
    assert all(tree.samples == tuple(range(len(tree.samples))) for tree in trees)


async def test_instances_and_trees_are_bounded_and_reused() -> None:
    alive: list[int] = [0]
    most: list[int] = [0]
    made: list[int] = []

    class Counted(Game):
        def __init__(self) -> None:
            made.append(1)

        def reset(self, task: Task) -> str:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            return super().reset(task)

        def step(self, action: str) -> StepResult:
            return super().step(action)

    _, report = await search(mcts(concurrency=4, simulations=6), Counted, count=10, limit=2)
    assert len(made) <= 2 and alive[0] > 20
    assert report.most_at_engine <= 4 and report.most_alive <= 10


async def test_slots_are_filled_by_several_trees() -> None:
    _, report = await search(mcts(concurrency=12, width=3), engine=HistoryEngine(1), count=12)
    assert 6 <= report.most_at_engine <= 12 and report.most_alive >= 4


async def test_episodes_that_follow_each_other_under_a_budget_fill_the_slots_with_trees() -> None:
    settings = BestOfNSettings(SampleSettings(max_turns=4, concurrency=12), 1000, Limits(tokens=60))
    _, report = await search(settings, engine=HistoryEngine(1), count=16)
    # How many of those that are alive are at the engine at one instant is the machine's affair; one tree would have one request there.
    assert 6 <= report.most_at_engine <= 12 <= report.most_alive


async def test_a_root_that_breaks_fails_its_tree_which_is_kept_at_the_end_and_searched_again() -> None:
    class Flaky(Game):
        broken = True

        def reset(self, task: Task) -> str:
            if type(self).broken and task.id == "game-1":
                raise RuntimeError("the door is shut")
            return super().reset(task)

    mine = mcts(max_failures=0.5, retries=1)
    trees, report = await search(mine, Flaky)
    assert (report.finished, report.failures, report.retried) == (2, {"environment.reset": 1}, {"environment.reset": 1})
    assert "the door is shut" in report.first_failures["environment.reset"].message
    assert [(len(tree.turns) > 0, len(tree.failures)) for tree in trees] == [(True, 0), (False, 1), (True, 0)]

    sink = Memory()
    with pytest.raises(RunFailed, match="environment.reset 1"):
        await search(mcts(max_failures=0.0, retries=0), Flaky, sink=sink)
    kept = {tree.task for tree in sink.fragments}
    assert "game-1" not in kept
    Flaky.broken = False
    trees, report = await search(mine, Flaky, sink=sink)
    assert report.resumed == len(kept) and report.finished == 3 - len(kept) and all(tree.turns for tree in trees)
    straight, _ = await search(mine, Game)
    assert [content_hash(tree) for tree in trees] == [content_hash(tree) for tree in straight]


async def test_an_engine_that_refuses_a_node_closes_it_and_the_search_goes_on() -> None:
    class Picky(HistoryEngine):
        async def generate(self, request: GenerationRequest) -> Generation:
            if "assistant\na\x02" in "".join(map(chr, request.prompt_ids)):
                raise EngineFailure("request", "not after an a")
            return await super().generate(request)

    trees, report = await search(mcts(simulations=6, max_failures=1.0), engine=Picky(), count=4)
    assert set(report.failures) == {"engine.request"} and not report.retried and report.finished == 4
    for tree in trees:
        for failure in tree.failures:
            assert failure.turn is not None and tree[failure.turn].text == "a" and not tree.children(failure.turn)
            assert failure.sample < 6
    assert any(len(tree.path(leaf.id)) > 2 for tree in trees for leaf in tree.leaves())
    assert sum(failure.traceback is not None for tree in trees for failure in tree.failures) == 1


async def test_a_first_observation_that_does_not_fit_is_a_failure_of_its_kind() -> None:
    trees, report = await search(mcts(max_failures=1.0), engine=HistoryEngine(max_model_len=30))
    assert report.failures == {"context.start": 3} and report.finished == 0
    assert all(not tree.turns and tree.failures[0].kind == "context.start" for tree in trees)


async def test_when_the_engine_is_gone_the_stage_stops_and_says_what_failed() -> None:
    with pytest.raises(RunFailed, match=r"candidates failed, more than max_failures allows \(0.2\): engine.connection") as caught:
        await search(mcts(retries=0), engine=BrokenEngine("rules"))
    assert "what was finished is kept; the same command goes on" in str(caught.value)


async def test_an_error_of_our_own_is_no_failure_and_stops_at_once() -> None:
    class Odd(HistoryEngine):
        async def generate(self, request: GenerationRequest) -> Generation:
            raise ZeroDivisionError("a mistake in the framework")

    with pytest.raises(ZeroDivisionError, match="a mistake in the framework"):
        await search(mcts(), engine=Odd())


async def test_what_an_environment_cancels_inside_is_a_failure_and_not_an_end() -> None:
    class Cancels(Game):
        async def step(self, action: str) -> StepResult:  # type: ignore[override]
            if action == "a":
                raise asyncio.CancelledError
            return super().step(action)

    _, report = await search(mcts(max_failures=1.0, retries=0), Cancels)
    assert set(report.failures) == {"episode.cancelled"} and report.finished == 3


async def test_progress_counts_trees_and_simulations() -> None:
    seen: list[str] = []

    class Watch(Quiet):
        def update(self, progress: Progress) -> None:
            seen.append(progress.line())

    _, report = await search(mcts(simulations=4), Photographed, display=Watch())
    assert seen[0].startswith("trees: 0/3 trees") and seen[-1].startswith("trees: 3/3 trees · success ")
    assert f"{report.simulations} simulations" in seen[-1]


async def test_the_report_adds_up() -> None:
    engine = HistoryEngine()
    trees, report = await search(mcts(simulations=6), Photographed, engine=engine, count=4)
    assert report.turns == len(engine.requests)
    assert report.turns == sum(turn.draw.copies for tree in trees for turn in tree.turns)
    assert report.duplicates == sum(turn.draw.copies - 1 for tree in trees for turn in tree.turns) > 0
    assert report.expansions == len({(tree.id, turn.parent) for tree in trees for turn in tree.turns})
    assert report.simulations == sum(len(tree.samples) for tree in trees)
    assert report.succeeded == sum(any(turn.success for turn in tree.turns) for tree in trees)


async def test_all_methods_resume() -> None:
    sample = SampleSettings(max_turns=3, max_tokens=8, concurrency=4)
    for settings in (mcts(), BestOfNSettings(sample, 3), BeamSettings(sample, 2, Expansion(width=2))):
        expected, _ = await search(settings)
        sink = Memory([expected[1]])
        engine = HistoryEngine(3)
        found, report = await search(settings, sink=sink, engine=engine)
        assert (report.resumed, report.finished) == (1, 2)
        assert [content_hash(tree) for tree in found] == [content_hash(tree) for tree in expected]
