"""Instances are made when needed, used again, bounded in number and time, and closed whatever happens."""

import asyncio
import threading

import pytest

from agentloop import Task
from agentloop.environment.failure import EnvironmentFailure
from agentloop.environment.pool import EnvironmentPool
from agentloop.errors import Mistake, WaitedTooLong

TASK = Task("train-0", {"start": 0})


async def play(pool: EnvironmentPool, action: str = "1") -> str:
    async with pool.instance() as player:
        await player.reset(TASK)
        return (await player.step(action)).observation


async def failure_of(pool: EnvironmentPool, action: str = "1") -> EnvironmentFailure:
    with pytest.raises(EnvironmentFailure) as caught:
        await play(pool, action)
    return caught.value


def log_of(spec) -> list[str]:
    """What an environment's file has collected in its list `LOG`."""
    return spec.load().LOG


LOGGING = """
LOG = []
def __init__(self):
    self.LOG.append("made")
def close(self):
    self.LOG.append("closed")
"""


async def test_instances_are_lazy_reused_and_closed(write) -> None:
    spec = write(LOGGING)
    async with EnvironmentPool(spec, concurrency=4) as pool:
        assert pool.created == 0
        for _ in range(10):
            await play(pool)
        assert log_of(spec) == ["made"]
        await asyncio.gather(*(play(pool) for _ in range(20)))
        assert pool.created <= 4
    assert log_of(spec).count("closed") == pool.created == pool.closed


@pytest.mark.parametrize("seats", ["('buyer', 'seller')", "()"])
async def test_an_environment_of_other_than_one_seat_is_refused_before_it_plays(write, seats: str) -> None:
    spec = write(f"{LOGGING}\ndef seats(self):\n    return {seats}")
    async with EnvironmentPool(spec) as pool:
        with pytest.raises(Mistake, match=r"has \d seats \((buyer, seller|none)\), and this version plays one an episode; expected seats"):
            await pool.tasks("train")
    assert log_of(spec) == ["made", "closed"]


async def test_the_seats_are_a_sequence_of_names(write) -> None:
    async with EnvironmentPool(write("def seats(self):\n    return 'actor'")) as pool:
        failure = await failure_of(pool)
    assert failure.kind == "environment.protocol" and "seats() returned str 'actor', expected a sequence of names" in str(failure)


async def test_no_more_instances_play_than_both_limits_allow(write) -> None:
    spec = write("concurrency = 3\nplaying = 0\nmost = 0\n" + LOGGING)
    pool = EnvironmentPool(spec, concurrency=10)
    assert (pool.limit, EnvironmentPool(spec, concurrency=2).limit) == (3, 2)
    playing, most = 0, 0

    async def episode() -> None:
        nonlocal playing, most
        async with pool.instance() as player:
            playing += 1
            most = max(most, playing)
            await player.reset(TASK)
            await asyncio.sleep(0.01)
            playing -= 1

    async with pool:
        await asyncio.gather(*(episode() for _ in range(12)))
    assert most == 3
    assert log_of(spec).count("made") == 3


async def test_a_sync_environment_lives_in_one_thread_and_does_not_hold_up_the_others(write) -> None:
    spec = write(
        """
        def __init__(self):
            self.home = threading.get_ident()
        def step(self, action):
            assert threading.get_ident() == self.home
            BARRIER.wait(20)
            return super().step(action)
        def success(self, total):
            return threading.get_ident() == self.home
        def close(self):
            assert threading.get_ident() == self.home
        """
    )
    import sys

    sys.modules[spec.load().__module__].BARRIER = threading.Barrier(4)  # passed only if four steps run at once
    async with EnvironmentPool(spec, concurrency=4) as pool:
        assert await asyncio.gather(*(play(pool) for _ in range(4))) == ["1"] * 4
        async with pool.instance() as player:
            assert player.success(0.0)
    assert (pool.closed, pool.failures) == (4, {})


async def test_an_async_environment_plays_on_the_event_loop(write) -> None:
    spec = write(
        """
        async def step(self, action):
            self.thread = threading.get_ident()
            await asyncio.sleep(0)
            return super().step(action)
        async def close(self):
            self.closed = True
        """
    )
    async with EnvironmentPool(spec) as pool, pool.instance() as player:
        await player.reset(TASK)
        assert (await player.step("1")).observation == "1"
        environment = player.environment
    assert environment.thread == threading.get_ident()
    assert environment.closed


@pytest.mark.parametrize(("kind", "wait"), [("def", "self.EVENT.wait(60)"), ("async def", "await asyncio.sleep(60)")])
async def test_a_step_that_hangs_is_abandoned_and_replaced(write, kind: str, wait: str) -> None:
    spec = write(
        f"""
        EVENT = threading.Event()
        {kind} step(self, action):
            if action == "hang":
                {wait}
            return super().step(action)
        """
    )
    async with EnvironmentPool(spec, concurrency=1, step_timeout=1.0) as pool:
        failure = await failure_of(pool, "hang")
        assert failure.kind == "environment.timeout"
        assert "waited 1 s for step() of environment" in str(failure)
        assert await play(pool) == "1"
        assert (pool.created, pool.abandoned, pool.failures["environment.timeout"]) == (2, 1, 1)
    spec.load().EVENT.set()


async def test_an_abandoned_instance_is_closed_when_it_comes_back(write) -> None:
    spec = write(
        "EVENT = threading.Event()\nCLOSED = threading.Event()\n"
        "def step(self, action):\n    self.EVENT.wait(60)\n"
        "def close(self):\n    self.CLOSED.set()"
    )
    async with EnvironmentPool(spec, step_timeout=0.5) as pool:
        await failure_of(pool)
    assert not spec.load().CLOSED.is_set()
    spec.load().EVENT.set()
    assert spec.load().CLOSED.wait(20)


async def test_an_instance_that_takes_too_long_to_make_is_closed_when_it_is_made(write) -> None:
    spec = write(
        """
        EVENT = threading.Event()
        CLOSED = threading.Event()
        def __init__(self):
            self.EVENT.wait(60)
        def close(self):
            self.CLOSED.set()
        """
    )
    async with EnvironmentPool(spec, create_timeout=0.2) as pool:
        failure = await failure_of(pool)
        assert failure.kind == "environment.timeout"
        assert "waited 0.2 s for environment" in str(failure) and "to be made, in vain" in str(failure)
    assert not spec.load().CLOSED.is_set()
    spec.load().EVENT.set()
    assert spec.load().CLOSED.wait(20)


async def test_what_an_environment_raises_is_counted_and_its_first_traceback_kept(write) -> None:
    spec = write("LOG = []\ndef step(self, action):\n    raise KeyError(action)\ndef close(self):\n    self.LOG.append('closed')")
    async with EnvironmentPool(spec) as pool:
        first, second = await failure_of(pool, "a"), await failure_of(pool, "b")
        assert (first.kind, pool.failures["environment.step"]) == ("environment.step", 2)
        assert "raised KeyError: 'a'" in str(first) and "mine.py:" in str(first)
        assert "Traceback" in (first.traceback or "") and second.traceback is None
        assert pool.tracebacks == {"environment.step": first.traceback}
        assert log_of(spec) == ["closed", "closed"]  # a broken instance is not used again
        assert pool.created == 2


async def test_exit_in_an_environment_is_a_failure_and_not_the_end(write) -> None:
    async with EnvironmentPool(write("def reset(self, task):\n    raise SystemExit(3)")) as pool:
        assert (await failure_of(pool)).kind == "environment.reset"


async def test_stop_iteration_is_a_failure_too(write) -> None:
    async with EnvironmentPool(write("def reset(self, task):\n    return next(iter(()))")) as pool:
        assert "StopIteration" in str(await failure_of(pool))


async def test_waiting_for_an_instance_says_what_it_waited_for(write) -> None:
    async with EnvironmentPool(write(""), concurrency=1, wait_timeout=0.2) as pool, pool.instance():
        with pytest.raises(WaitedTooLong, match=r"waited 0.2 s for a free instance of environment '.*mine.py' \(1 at most, all playing"):
            async with pool.instance():
                pass
    assert pool.closed == 1


async def test_a_long_queue_is_no_reason_to_give_up_while_something_moves(write) -> None:
    spec = write("def step(self, action):\n    time.sleep(0.2)\n    return super().step(action)")
    async with EnvironmentPool(spec, concurrency=1, wait_timeout=2.0) as pool:  # the last of twelve waits longer than that
        assert await asyncio.gather(*(play(pool) for _ in range(12))) == ["1"] * 12


async def test_a_cancelled_episode_closes_its_instance_and_frees_its_place(write) -> None:
    spec = write(
        """
        LOG = []
        EVENT = threading.Event()
        def step(self, action):
            self.EVENT.wait(60)
        def close(self):
            self.LOG.append("closed")
        """
    )
    async with EnvironmentPool(spec, concurrency=1) as pool:
        episode = asyncio.create_task(play(pool))
        while pool.created == 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        episode.cancel()
        spec.load().EVENT.set()  # the step returns; `close` was queued behind it
        with pytest.raises(asyncio.CancelledError):
            await episode
        assert log_of(spec) == ["closed"]
        async with pool.instance() as player:
            assert await player.reset(TASK) == "0"


async def test_idle_instances_are_reaped(write) -> None:
    async with EnvironmentPool(write(LOGGING), idle_timeout=0.1) as pool:
        await play(pool)
        for _ in range(500):
            if pool.closed:
                break
            await asyncio.sleep(0.01)
        assert pool.closed == 1
        assert await play(pool) == "1"
    assert (pool.created, pool.closed) == (2, 2)


async def test_an_error_in_the_sampler_leaves_the_instance_usable(write) -> None:
    async with EnvironmentPool(write(""), concurrency=1) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.instance() as player:
                await player.reset(TASK)
                raise ZeroDivisionError
        assert await play(pool) == "1"
        assert pool.created == 1


async def test_text_that_cannot_be_stored_is_mended_and_info_is_json(write) -> None:
    spec = write("def step(self, action):\n    return StepResult('a\\ud800', 1, True, info={'when': threading, 'n': (1, 2)})")
    async with EnvironmentPool(spec) as pool, pool.instance() as player:
        await player.reset(TASK)
        result = await player.step("")
    assert result.observation == "a?"
    assert result.info["n"] == [1, 2] and "module" in result.info["when"]
    assert isinstance(result.reward, float)


async def test_examples_are_played_from_demonstrations_of_train_tasks(write) -> None:
    async with EnvironmentPool(write("")) as pool, pool.instance() as player:
        assert await player.examples(0) == []
        assert await player.examples(1) == [
            [
                {"role": "user", "content": "0"},
                {"role": "assistant", "content": "1"},
                {"role": "user", "content": "1"},
                {"role": "assistant", "content": "2"},
                {"role": "user", "content": "2"},
                {"role": "assistant", "content": "3"},
            ]
        ]


async def test_an_environment_without_demonstrations_has_no_examples(write) -> None:
    async with EnvironmentPool(write("def demonstration(self, task):\n    return None")) as pool, pool.instance() as player:
        assert await player.examples(2) == []


async def test_the_system_prompt_may_depend_on_the_task(write) -> None:
    async with EnvironmentPool(write("n = 9\ndef system_prompt(self):\n    return f'start {self.n}'")) as pool, pool.instance() as player:
        assert player.system_prompt() == "start 9"
        await player.reset(TASK)
        assert player.system_prompt() == "start 0"


async def test_bad_options_are_found_before_any_instance_is_made(write) -> None:
    with pytest.raises(Mistake, match="unknown option 'speed'"):
        EnvironmentPool(write(""), {"speed": 1})


async def test_a_closed_pool_hands_out_nothing(write) -> None:
    pool = EnvironmentPool(write(""))
    await pool.close()
    await pool.close()
    with pytest.raises(RuntimeError, match="is closed"):
        await play(pool)
