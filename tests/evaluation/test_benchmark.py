"""An evaluation from tasks to measurements, on disk, resumed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentloop.engine.base import GenerationRequest
from agentloop.evaluation.benchmark import Evaluation, evaluate, evaluate_trees
from agentloop.evaluation.measure import measure
from agentloop.sampling.group import Origin
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.hash import trees_hash
from agentloop.trace.render import Renderer
from agentloop.trace.store import TreeWriter, read_trees
from tests.sampling.world import CharacterTokenizer, FunctionEngine, Letters, pool_of, tasks

ORIGIN = Origin("dev", "toy", "dev", iteration="001", seed=3)


async def evaluated(path: Path, engine: FunctionEngine | None = None) -> Evaluation:
    async with pool_of(Letters) as pool, asyncio.timeout(60):
        return await evaluate(
            tasks(8),
            engine=engine or FunctionEngine(),
            pool=pool,
            renderer=Renderer(CharacterTokenizer()),
            settings=SampleSettings(samples=2, max_tokens=16, episodes=4),
            origin=ORIGIN,
            path=path,
        )


async def test_it_measures_what_its_trees_hold(tmp_path: Path) -> None:
    engine = FunctionEngine()
    found = await evaluated(tmp_path / "dev.parquet", engine)
    trees = list(read_trees(found.trees))
    assert [tree.id for tree in trees] == [f"001/dev/train-{number}" for number in range(8)]
    assert list(found.measurements[:5]) == measure(trees, stage="dev", iteration="001")
    assert [measurement.name for measurement in found.measurements[5:]] == ["pass@2"]
    solved = [sum(leaf.success is True for leaf in tree.leaves()) for tree in trees]
    assert found["pass@2"].value == sum(count > 0 for count in solved) / 8
    assert set(found.sums()) == {"success", "reward", "turns", "tokens", "failures", "pass@2"}
    assert found["success"].n == 16 and found["success"].tasks == 8 and 0 < found["success"].value < 1
    assert found.tokens.prompt == sum(len(request.prompt_ids) for request in engine.requests)
    assert found.tokens.generated == sum(len(answer.ids) for answer in engine.answers.values())
    assert found["tokens"].value == pytest.approx(found.tokens.generated / 16)
    with pytest.raises(KeyError):
        found["beauty"]


async def test_an_interrupted_evaluation_goes_on_and_measures_the_same(tmp_path: Path) -> None:
    expected = await evaluated(tmp_path / "whole.parquet")
    path = tmp_path / "dev.parquet"
    done: list[GenerationRequest] = []

    async def stops(request: GenerationRequest) -> None:
        done.append(request)
        if len(done) > 20:
            await asyncio.Event().wait()

    stopped = asyncio.ensure_future(evaluated(path, FunctionEngine(before=stops)))
    while len(done) <= 20:
        await asyncio.sleep(0.001)
    stopped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopped
    assert not path.exists(), "a half evaluation is no artifact"
    with TreeWriter(path) as writer:
        kept = len(writer.finished)
    assert 0 < kept < 16, "with four episodes alive and three turns each, some had ended before the twenty-first request"
    found = await evaluated(path)
    assert found.sampling is not None and (found.sampling.resumed, found.sampling.finished) == (kept, 16 - kept)
    assert trees_hash(path) == trees_hash(expected.trees)
    assert found.measurements == expected.measurements


async def test_a_finished_evaluation_asks_the_engine_for_nothing(tmp_path: Path) -> None:
    first = await evaluated(tmp_path / "dev.parquet")
    engine = FunctionEngine()
    again = await evaluated(tmp_path / "dev.parquet", engine)
    assert engine.requests == [] and again.measurements == first.measurements
    assert evaluate_trees(first.trees, stage="dev", iteration="001").measurements == first.measurements
