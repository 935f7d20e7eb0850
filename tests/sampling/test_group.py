"""Groups: nothing waits that need not, nothing depends on who finishes first, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.engine.base import GenerationRequest
from agentloop.environment.base import StepResult, Task
from agentloop.errors import RunFailed
from agentloop.sampling.group import Origin, sample_groups
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.hash import trees_hash
from agentloop.trace.render import Renderer
from agentloop.trace.store import TreeWriter, read_trees
from agentloop.trace.tree import Tree
from tests.sampling.world import ORIGIN, CharacterTokenizer, FunctionEngine, Letters, Memory, pool_of, sample, tasks


class Crowd:
    """Holds every request back until `size` of them are at the engine at once; then, and for the rest, all go on."""

    def __init__(self, size: int) -> None:
        self.size, self.now, self.most = size, 0, 0
        self._full = asyncio.Event()

    async def __call__(self, request: GenerationRequest) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        if self.now >= self.size:
            self._full.set()
        await self._full.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        self.now -= 1


class Jitter:
    """Lets others go first, a random number of times."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    async def __call__(self, request: GenerationRequest) -> None:
        for _ in range(self._random.randint(0, 12)):
            await asyncio.sleep(0)


async def test_the_engine_gets_as_many_requests_at_once_as_allowed_and_never_more() -> None:
    crowd = Crowd(5)
    _, report = await sample(engine=FunctionEngine(before=crowd), settings=SampleSettings(samples=4, concurrency=5, max_tokens=16))
    assert crowd.most == 5 == report.most_at_engine
    assert report.finished == 16


class Stuck(Letters):
    """Asynchronous; the first task's step waits for `free`."""

    free: asyncio.Event

    async def step(self, action: str) -> StepResult:
        if self.task.id == "train-0":
            await type(self).free.wait()
        return super().step(action)

    async def reset(self, task: Task) -> str:
        return str(super().reset(task))


async def test_a_slow_environment_holds_neither_the_others_nor_the_engine() -> None:
    Stuck.free = asyncio.Event()

    class FreesAtTheEnd(Memory):
        def add(self, fragment: Tree) -> None:
            super().add(fragment)
            if len(self.fragments) == 9:
                loop.call_soon_threadsafe(Stuck.free.set)

    loop = asyncio.get_running_loop()
    sink = FreesAtTheEnd()
    # With one slot at the engine: an episode that held it, or a barrier between turns or groups, would wait for ever.
    await sample(Stuck, sink=sink, settings=SampleSettings(samples=3, concurrency=1, episodes=6, max_tokens=16))
    assert {task for task, _ in sink.order[:9]} == {"train-1", "train-2", "train-3"}
    assert [task for task, _ in sink.order[9:]] == ["train-0"] * 3


class Assembly(Letters):
    """The first step of every episode waits until `size` episodes are in theirs."""

    size: int
    waiting: int
    most: int
    enough: asyncio.Event

    @classmethod
    def gather(cls, size: int) -> None:
        cls.size, cls.waiting, cls.most, cls.enough = size, 0, 0, asyncio.Event()

    async def reset(self, task: Task) -> str:
        return str(super().reset(task))

    async def step(self, action: str) -> StepResult:
        Assembly.waiting += 1
        Assembly.most = max(Assembly.most, Assembly.waiting)
        if Assembly.waiting == Assembly.size:
            Assembly.enough.set()
        await Assembly.enough.wait()
        Assembly.waiting -= 1
        return super().step(action)


async def test_while_environments_wait_new_episodes_fill_the_engine_up_to_the_bound() -> None:
    Assembly.gather(6)
    _, report = await sample(Assembly, settings=SampleSettings(samples=5, concurrency=2, episodes=6, max_tokens=16))
    assert Assembly.most == 6 == report.most_alive and report.finished == 20


async def test_no_more_episodes_are_alive_than_the_pool_has_instances() -> None:
    Assembly.gather(3)
    _, report = await sample(Assembly, settings=SampleSettings(samples=3, concurrency=8, max_tokens=16), limit=3)
    assert report.most_alive == 3 and report.finished == 12


async def test_tasks_are_taken_when_there_is_room_and_not_before() -> None:
    class Counted(Sequence[Task]):
        taken = 0

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            raise NotImplementedError

        def __iter__(self) -> Iterator[Task]:
            for number in range(1000):
                self.taken += 1
                yield Task(f"train-{number}", {"letter": "a"})

    found: list[int] = []

    async def look(request: GenerationRequest) -> None:
        found.append(many.taken)
        if len(found) >= 300:
            await asyncio.Event().wait()

    many = Counted()
    async with pool_of(Letters) as pool:
        sampling = asyncio.ensure_future(
            sample_groups(
                many,
                engine=FunctionEngine(before=look),
                pool=pool,
                renderer=Renderer(CharacterTokenizer()),
                sink=Memory(),
                settings=SampleSettings(concurrency=4, max_tokens=16),
                origin=ORIGIN,
            )
        )
        while len(found) < 300:
            await asyncio.sleep(0)
        sampling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sampling
    # At most 16 episodes are alive (four times the concurrency), one task waits for room, and each that has ended was asked at least once.
    assert all(taken <= asked + 17 for asked, taken in enumerate(found, 1))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), concurrency=st.integers(1, 9))
def test_what_is_sampled_does_not_depend_on_the_order_of_finishing(seed: int, concurrency: int) -> None:
    plain = SampleSettings(samples=3, concurrency=1, episodes=1, max_tokens=16)
    mixed = SampleSettings(samples=3, concurrency=concurrency, max_tokens=16)
    expected, _ = asyncio.run(sample(settings=plain))
    found, _ = asyncio.run(sample(engine=FunctionEngine(before=Jitter(seed)), settings=mixed))
    assert trees_hash(found) == trees_hash(expected)


async def test_the_order_of_finishing_really_is_shuffled_by_these_tests() -> None:
    orders = []
    for seed in range(3):
        sink = Memory()
        await sample(engine=FunctionEngine(before=Jitter(seed)), sink=sink, settings=SampleSettings(samples=3, max_tokens=16))
        orders.append(tuple(sink.order))
    assert len(set(orders)) == 3 and len({frozenset(order) for order in orders}) == 1


async def test_seeds_belong_to_the_run_the_stage_the_iteration_and_the_task() -> None:
    async def seeds(origin: Origin) -> set[int | None]:
        trees, _ = await sample(origin=origin, count=3)
        return {turn.draw.seed for tree in trees for turn in tree.turns}

    first = await seeds(ORIGIN)
    assert await seeds(ORIGIN) == first and len(first) >= 9
    for other in (
        Origin("trees", "toy", "train", "001", 7),
        Origin("others", "toy", "train", "000", 7),
        Origin("trees", "toy", "train", "000", 8),
    ):
        assert not first & await seeds(other)


async def test_a_sample_is_the_same_whatever_the_size_of_its_group() -> None:
    small, _ = await sample(settings=SampleSettings(samples=1, max_tokens=16))
    large, _ = await sample(settings=SampleSettings(samples=4, max_tokens=16))
    for one, many in zip(small, large, strict=True):
        assert [turn.completion_ids for turn in one.turns] == [turn.completion_ids for turn in many.turns if turn.id.startswith("0.")]


class Stops(Exception):
    """The process dies."""


class DiesAfter(Memory):
    def __init__(self, kept: int) -> None:
        super().__init__()
        self._left = kept

    def add(self, fragment: Tree) -> None:
        if self._left == 0:
            raise Stops
        self._left -= 1
        super().add(fragment)


@settings(max_examples=13, deadline=None)
@given(kept=st.integers(0, 12), seed=st.integers(0, 1000))
def test_a_resumed_stage_ends_as_an_uninterrupted_one(kept: int, seed: int) -> None:
    expected, _ = asyncio.run(sample())
    dying = DiesAfter(kept)
    if kept < 12:
        with pytest.raises(Stops):
            asyncio.run(sample(engine=FunctionEngine(before=Jitter(seed)), sink=dying))
    else:
        asyncio.run(sample(sink=dying))
    engine = FunctionEngine(before=Jitter(seed + 1))
    found, report = asyncio.run(sample(engine=engine, sink=Memory(dying.fragments)))
    assert trees_hash(found) == trees_hash(expected)
    assert (report.resumed, report.finished, report.episodes) == (kept, 12 - kept, 12)
    left = {turn.draw.seed for tree in expected for turn in tree.turns} - {
        turn.draw.seed for tree in dying.fragments for turn in tree.turns
    }
    assert {request.seed for request in engine.requests} == left, "what was finished is not sampled again"


async def test_a_stage_resumes_from_its_tree_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    expected, _ = await sample()
    path = tmp_path / "trees.parquet"
    with TreeWriter(path) as writer:

        async def before(request: GenerationRequest) -> None:
            if len(writer.finished) >= 5:
                await asyncio.Event().wait()

        settings = SampleSettings(samples=3, max_turns=5, max_tokens=16, concurrency=2, episodes=3)
        sampling = asyncio.ensure_future(sample(engine=FunctionEngine(before=before), sink=writer, settings=settings))  # type: ignore[arg-type]
        while len(writer.finished) < 5:
            await asyncio.sleep(0.001)
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    with TreeWriter(path) as writer:
        assert 5 <= len(writer.finished) < 12
        async with pool_of(Letters) as pool:
            await sample_groups(
                tasks(),
                engine=FunctionEngine(),
                pool=pool,
                renderer=Renderer(CharacterTokenizer()),
                sink=writer,
                settings=SampleSettings(samples=3, max_turns=5, max_tokens=16),
                origin=ORIGIN,
            )
        writer.finish([ORIGIN.tree_id(task.id) for task in tasks()])
    assert trees_hash(path) == trees_hash(expected)
    assert [tree.task for tree in read_trees(path)] == [task.id for task in tasks()]


async def test_ctrl_c_closes_the_instances_and_keeps_what_was_finished() -> None:
    Letters.opened, Letters.closed = [], []
    sink = Memory()
    hold = asyncio.Event()

    async def before(request: GenerationRequest) -> None:
        if len(sink.fragments) >= 4:
            await hold.wait()

    sampling = asyncio.ensure_future(
        sample(engine=FunctionEngine(before=before), sink=sink, settings=SampleSettings(samples=3, concurrency=3, max_tokens=16))
    )
    while len(sink.fragments) < 4:
        await asyncio.sleep(0.001)
    sampling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sampling
    assert len(sink.fragments) >= 4
    assert all(tree.turns[-1].done and not tree.failures for tree in sink.fragments), "no half-played episode is kept"
    assert Counter(map(id, Letters.closed)) == Counter(map(id, Letters.opened))
    assert len(Letters.opened) > 0


async def test_an_episode_that_something_inside_cancels_is_a_failure_and_not_dropped() -> None:
    class Cancels(Letters):
        async def reset(self, task: Task) -> str:
            return str(super().reset(task))

        async def step(self, action: str) -> StepResult:
            if self.task.id == "train-1":
                raise asyncio.CancelledError
            return super().step(action)

    trees, report = await sample(Cancels, settings=SampleSettings(samples=2, retries=0, max_failures=1.0, max_tokens=16))
    assert report.finished + sum(report.failures.values()) == 8 == sum(len(tree.samples) for tree in trees)
    assert report.failures == {"episode.cancelled": 2}


async def test_a_full_disk_stops_the_stage_at_once() -> None:
    class Full(Memory):
        def add(self, fragment: Tree) -> None:
            raise RunFailed("no space left on the disk")

    with pytest.raises(RunFailed, match="no space left"):
        await sample(sink=Full())
