"""Admission: who may start, who may go to the engine."""

from __future__ import annotations

import asyncio

from agentloop.sampling.admission import Admission


async def starts(admission: Admission) -> int:
    """How many episodes may start now, one after another."""
    count = 0
    while True:
        asking = asyncio.ensure_future(admission.admit())
        for _ in range(3):
            await asyncio.sleep(0)
        if not asking.done():
            asking.cancel()
            return count
        count += 1


async def test_episodes_start_until_they_fill_the_engine() -> None:
    admission = Admission(slots=3, episodes=10)
    assert await starts(admission) == 3
    admission.leave()
    assert await starts(admission) == 1 and admission.alive == 3


async def test_an_episode_that_waits_for_its_environment_makes_room_for_another() -> None:
    admission = Admission(slots=3, episodes=4, patience=0.0)
    await starts(admission)
    with admission.environment(), admission.environment():
        await asyncio.sleep(0.001)
        assert admission.waiting == 2
        assert await starts(admission) == 1, "no more than `episodes` are alive"
    assert admission.waiting == 0 and await starts(admission) == 0
    admission.leave()
    assert await starts(admission) == 0, "those that came back from their environments fill the engine"
    admission.leave()
    assert await starts(admission) == 1


async def test_a_short_wait_makes_no_room() -> None:
    admission = Admission(slots=2, episodes=9, patience=3600.0)
    await starts(admission)
    with admission.environment():
        assert await starts(admission) == 0
    assert (admission.alive, admission.waiting, admission.most_alive) == (2, 0, 2)


async def test_slots_at_the_engine_are_given_in_the_order_of_asking() -> None:
    admission = Admission(slots=1, episodes=9)
    order: list[int] = []

    async def work(number: int) -> None:
        async with admission.engine():
            assert admission.at_engine == 1
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4] and admission.at_engine == 0 and admission.most_at_engine == 1


async def test_a_wait_that_fails_is_over() -> None:
    admission = Admission(slots=1, episodes=9, patience=0.0)
    try:
        with admission.environment():
            await asyncio.sleep(0.001)
            raise OSError
    except OSError:
        pass
    assert admission.waiting == 0
    await asyncio.sleep(0.001)
    assert admission.waiting == 0, "and its timer does not count it later"
