"""A stage of judging: resumed, bounded, stopped when too much fails, and told in numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentloop.critic import FirstError, JudgeProgress, Limits, ModelJudge, OutcomeJudge, judge_trees
from agentloop.critic.base import Judged, JudgeFailure
from agentloop.errors import RunFailed
from agentloop.trace.hash import trees_hash
from agentloop.trace.store import TreeWriter, read_trees
from agentloop.trace.tree import Tree
from tests.critic.test_first_error import by_word
from tests.critic.world import Judge, grow, respondent, verdicts

TREES = [grow(["g1", "b2"], ["u1"], id=f"000/trees/t{number}", seed=number) for number in range(7)]


def judge(progress: JudgeProgress) -> ModelJudge:
    return ModelJudge(FirstError(), respondent(Judge(by_word)), stage="errors", progress=progress)


async def run(path: Path, trees: list[Tree] = TREES, **limits: float) -> JudgeProgress:
    progress = JudgeProgress("errors", len(trees))
    with TreeWriter(path) as writer:
        await judge_trees(trees, judge(progress), writer, progress=progress, limits=Limits(**limits))  # type: ignore[arg-type]
        writer.finish([tree.id for tree in trees])
    return progress


async def test_trees_come_out_in_their_order_with_verdicts(tmp_path: Path) -> None:
    progress = await run(tmp_path / "errors.parquet")
    found = list(read_trees(tmp_path / "errors.parquet"))
    assert [tree.id for tree in found] == [tree.id for tree in TREES]
    assert all(set(verdicts(tree)) == {"0.0", "0.1", "1.0"} for tree in found)
    assert progress.line().startswith("errors: 7/7 trees · 21 questions · Bad 7, Good 7, Uncertain 7 · ")


async def test_a_stopped_stage_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    await run(tmp_path / "whole.parquet")

    def interrupted() -> Iterator[Tree]:
        yield from TREES[:4]
        raise KeyboardInterrupt

    progress = JudgeProgress("errors", 7)
    with TreeWriter(tmp_path / "parts.parquet") as writer, pytest.raises((KeyboardInterrupt, asyncio.CancelledError)):
        kept = Limits(trees=1)
        await judge_trees(interrupted(), judge(progress), writer, progress=progress, limits=kept)
    assert not (tmp_path / "parts.parquet").exists()
    progress = await run(tmp_path / "parts.parquet")
    assert progress.resumed >= 3 and progress.done == 7
    assert trees_hash(tmp_path / "parts.parquet") == trees_hash(tmp_path / "whole.parquet")


class Failing:
    """A judge that cannot judge some trees."""

    def __init__(self, broken: set[str], progress: JudgeProgress) -> None:
        self.broken, self.progress = broken, progress

    async def judge(self, tree: Tree) -> Judged:
        self.progress.asked += 10
        failure = JudgeFailure("engine.timeout", f"no answer about {tree.id}", "0.0", "Traceback of it")
        return Judged(tree, (failure,) * 10 if tree.id in self.broken else ())


async def test_a_stage_with_too_many_failures_stops_and_says_why(tmp_path: Path) -> None:
    progress = JudgeProgress("errors", 7)
    with TreeWriter(tmp_path / "errors.parquet") as writer:
        failing = Failing({"000/trees/t1", "000/trees/t2"}, progress)
        with pytest.raises(RunFailed) as caught:
            await judge_trees(TREES, failing, writer, progress=progress, limits=Limits(trees=1, max_failures=0.4))
        assert [tree.id for tree in writer.fragments()] == ["000/trees/t0"]
    message = str(caught.value)
    assert message.startswith("10 of 20 questions were not answered, more than max_failures allows (0.4): engine.timeout 10")
    assert "first engine.timeout: no answer about 000/trees/t1\nTraceback of it" in message


async def test_a_few_failures_are_kept_at_the_end_and_counted(tmp_path: Path) -> None:
    progress = JudgeProgress("errors", 7)
    with TreeWriter(tmp_path / "errors.parquet") as writer:
        report = await judge_trees(TREES, Failing({"000/trees/t3"}, progress), writer, progress=progress, limits=Limits(max_failures=0.4))
        assert [tree.id for tree in writer.fragments()][-1] == "000/trees/t3"
    assert report.failures == {"engine.timeout": 10} and progress.done == 7
    assert report.first_failures["engine.timeout"].message == "no answer about 000/trees/t3"


async def test_trees_are_read_as_there_is_room(tmp_path: Path) -> None:
    alive, most = 0, 0

    class Slow(OutcomeJudge):
        async def judge(self, tree: Tree) -> Judged:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            await asyncio.sleep(0)
            alive -= 1
            return await super().judge(tree)

    read = 0

    def counted() -> Iterator[Tree]:
        nonlocal read
        for tree in TREES:
            read += 1
            assert read - progress.finished <= 4
            yield tree

    progress = JudgeProgress("outcome", 7)
    with TreeWriter(tmp_path / "outcome.parquet") as writer:
        await judge_trees(counted(), Slow(), writer, progress=progress, limits=Limits(trees=3))
    assert most <= 3 and progress.finished == 7
