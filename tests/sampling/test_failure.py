"""Failed episodes: counted by kind with a traceback each, retried a bounded number of times, and too many of them stop the stage."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from agentloop.environment.base import StepResult, Task
from agentloop.errors import RunFailed
from agentloop.sampling.failure import FailureLog
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.hash import trees_hash
from agentloop.trace.tree import Failure
from tests.sampling.world import FunctionEngine, Letters, Memory, sample

ALL_MAY_FAIL = SampleSettings(samples=2, retries=0, max_failures=1.0, max_tokens=16)


class Fragile(Letters):
    """Breaks in another way at each task."""

    def reset(self, task: Task) -> str:
        if task.id == "train-0":
            raise OSError("no such world")
        return str(super().reset(task))

    def step(self, action: str) -> StepResult:
        if self.task.id == "train-1":
            raise KeyError("door")
        if self.task.id == "train-2":
            return "not a result"  # type: ignore[return-value]
        return super().step(action)


async def test_failures_are_counted_by_kind_and_the_first_traceback_of_each_is_kept() -> None:
    trees, report = await sample(Fragile, settings=ALL_MAY_FAIL, count=5)
    assert report.failures == {"environment.reset": 2, "environment.step": 2, "environment.protocol": 2}
    assert report.finished == 4 and report.episodes == 10
    failures = [failure for tree in trees for failure in tree.failures]
    assert Counter(failure.kind for failure in failures) == report.failures, "each is kept in its tree"
    for kind in report.failures:
        with_traceback = [failure for failure in failures if failure.kind == kind and failure.traceback is not None]
        assert len(with_traceback) == 1 and report.first_failures[kind] == with_traceback[0]
    assert "OSError: no such world" in str(report.first_failures["environment.reset"].traceback)
    assert "KeyError: 'door'" in str(report.first_failures["environment.step"].traceback)
    assert all(failure.turn is not None for failure in failures if failure.kind != "environment.reset")


async def test_an_environment_that_hangs_is_a_timeout_that_names_the_call() -> None:
    class Hangs(Letters):
        step_timeout = 0.3
        release = threading.Event()

        def reset(self, task: Task) -> str:
            Hangs.release.wait(60)
            return str(super().reset(task))

    try:
        trees, report = await sample(Hangs, settings=ALL_MAY_FAIL, count=2)
    finally:
        Hangs.release.set()
    assert report.failures == {"environment.timeout": 4} and report.finished == 0
    assert "waited 0.3 s for reset()" in report.first_failures["environment.timeout"].message
    assert all(not tree.turns and len(tree.failures) == 2 for tree in trees)


async def test_too_many_failures_stop_the_stage_with_kinds_and_tracebacks() -> None:
    class Broken(Letters):
        def step(self, action: str) -> StepResult:
            raise ConnectionError("port 1234 refused") if self.task.id != "train-0" else RuntimeError("odd")

    sink = Memory()
    with pytest.raises(RunFailed) as stopped:
        await sample(Broken, sink=sink, settings=SampleSettings(samples=8, concurrency=2, max_tokens=16), count=12)
    message = str(stopped.value)
    assert "max_failures" in message and "environment.step" in message
    assert "the same command goes on" in message
    assert "Error" in message and 'File "' in message, "the first traceback is shown"
    assert not sink.fragments, "failed episodes are not kept when the stage stops, so that the next attempt plays them again"


async def test_a_stage_that_stopped_goes_on_once_the_environment_is_mended() -> None:
    class Mended(Letters):
        broken = True

        def reset(self, task: Task) -> str:
            if Mended.broken and task.id in ("train-1", "train-3"):
                raise OSError("no display")
            return str(super().reset(task))

    expected, _ = await sample()
    sink = Memory()
    with pytest.raises(RunFailed, match=r"6 of 12 episodes failed.*environment\.reset 6"):
        await sample(Mended, sink=sink, settings=SampleSettings(samples=3, max_turns=5, max_tokens=16, few=100))
    assert len(sink.fragments) == 6
    Mended.broken = False
    trees, report = await sample(Mended, sink=sink)
    assert (report.resumed, report.finished, report.failures) == (6, 6, {})
    assert trees_hash(trees) == trees_hash(expected)


async def test_failures_within_the_share_do_not_stop_and_are_kept_in_the_end() -> None:
    class Some(Letters):
        def reset(self, task: Task) -> str:
            if task.id == "train-7":
                raise OSError("no display")
            return str(super().reset(task))

    sink = Memory()
    trees, report = await sample(Some, sink=sink, settings=SampleSettings(samples=2, retries=0, max_tokens=16), count=12)
    assert report.failures == {"environment.reset": 2} and report.finished == 22
    assert [tree.task for tree in sink.fragments[-2:]] == ["train-7"] * 2
    assert [len(tree.samples) for tree in trees] == [2] * 12


async def test_quick_failures_among_slow_episodes_are_taken_for_what_they_are() -> None:
    """Three of twenty fail at once, while the others still wait for the engine: a share of those that *ended* would be all of them."""
    ended = asyncio.Event()

    class Few(Letters):
        def reset(self, task: Task) -> str:
            if task.id in ("train-0", "train-1", "train-2"):
                raise OSError("no display")
            return str(super().reset(task))

    failed: list[int] = []

    class Watch:
        def __enter__(self):  # type: ignore[no-untyped-def]
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update(self, progress) -> None:  # type: ignore[no-untyped-def]
            failed.append(progress.failures.total())
            if failed[-1] == 3:
                ended.set()

    async def before(request: object) -> None:
        await ended.wait()

    settings = SampleSettings(samples=1, retries=0, concurrency=20, few=2, max_tokens=16)
    _, report = await sample(Few, engine=FunctionEngine(before=before), settings=settings, count=20, display=Watch())
    assert report.failures == {"environment.reset": 3} and report.finished == 17


class BreaksOnce(Letters):
    """Breaks the first time that a task is stepped."""

    seen: Counter[str]

    def step(self, action: str) -> StepResult:
        BreaksOnce.seen[self.task.id] += 1
        if BreaksOnce.seen[self.task.id] == 1:
            raise TimeoutError("try again")
        return super().step(action)


async def test_a_passing_fault_is_retried_and_leaves_no_mark_on_the_trees() -> None:
    BreaksOnce.seen = Counter()
    expected, _ = await sample()
    trees, report = await sample(BreaksOnce)
    assert trees_hash(trees) == trees_hash(expected)
    assert report.failures == {} and report.retried == {"environment.step": 4}
    assert "try again" in str(report.first_failures["environment.step"].traceback)


async def test_retries_are_bounded() -> None:
    class Never(Letters):
        attempts = 0

        def reset(self, task: Task) -> str:
            Never.attempts += 1
            raise OSError("down")

    _, report = await sample(Never, settings=SampleSettings(samples=1, retries=2, max_failures=1.0), count=1)
    assert Never.attempts == 3 and report.failures == {"environment.reset": 1} and report.retried == {"environment.reset": 2}


def test_the_share_is_judged_after_a_few_and_at_the_end() -> None:
    log = FailureLog(max_failures=0.2, few=8)
    for sample_number in range(2):
        log.add(Failure("environment.step", "gone", sample_number, traceback="Traceback ..."))
    log.check(7)
    log.check(10)
    with pytest.raises(RunFailed, match=r"2 of 9 episodes failed"):
        log.check(9)
    with pytest.raises(RunFailed, match=r"2 of 3 episodes failed"):
        log.check(3, ended=True)
