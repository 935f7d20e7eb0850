"""The pool of adapters, held against a model of it by hypothesis."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.engine.base import BASE, AdapterVersion, EngineFailure
from agentloop.engine.pool import AdapterPool

LIMIT = 3


def version(name: str, weights: str) -> AdapterVersion:
    return AdapterVersion(name, Path("/nowhere"), weights)


@given(st.lists(st.tuples(st.sampled_from("lu"), st.sampled_from(["a", "b", "c", "d", "e"]), st.sampled_from(["1", "2"]))))
def test_it_holds_what_was_loaded_within_the_limit_and_one_weight_a_name(steps: list[tuple[str, str, str]]) -> None:
    pool = AdapterPool(LIMIT)
    held: set[str] = set()
    first: dict[str, str] = {}
    for action, name, weights in steps:
        if action == "u":
            pool.remove(name)
            held.discard(name)
        elif first.get(name, weights) != weights or (name not in held and len(held) == LIMIT):
            with pytest.raises(EngineFailure):
                pool.check_room(version(name, weights))
        else:
            assert pool.check_room(version(name, weights)) == (name not in held)
            pool.add(version(name, weights))
            held.add(name)
            first[name] = weights
        assert set(pool.names) == held and list(pool.names) == sorted(held)


def test_base_is_no_name_for_an_adapter() -> None:
    with pytest.raises(EngineFailure, match="stands for the bare model"):
        AdapterPool(1).check_room(version(BASE, "1"))


def test_base_needs_no_loading() -> None:
    pool = AdapterPool(0)
    with pool.use(BASE):
        assert pool.in_flight(BASE) == 1
    assert pool.in_flight(BASE) == 0


async def test_draining_refuses_the_new_and_waits_for_the_old() -> None:
    pool = AdapterPool(1)
    pool.add(version("a", "1"))
    release = asyncio.Event()

    async def request() -> None:
        with pool.use("a"):
            await release.wait()

    running = asyncio.create_task(request())
    await asyncio.sleep(0)
    draining = asyncio.create_task(pool.drain("a", timeout=30))
    await asyncio.sleep(0.05)
    assert not draining.done()
    with pytest.raises(EngineFailure, match="'a' is not loaded"), pool.use("a"):
        raise AssertionError("a leaving adapter was used")
    release.set()
    await draining
    await running


async def test_draining_in_vain_says_who_still_uses_it_and_gives_the_adapter_back() -> None:
    pool = AdapterPool(1)
    pool.add(version("a", "1"))
    with pool.use("a"):
        with pytest.raises(EngineFailure, match=r"waited 0.05 s for 1 requests that use adapter 'a'") as caught:
            await pool.drain("a", timeout=0.05)
        assert caught.value.kind == "timeout"
        with pool.use("a"):
            assert pool.in_flight("a") == 2


def test_a_request_that_fails_is_not_counted_for_ever() -> None:
    pool = AdapterPool(1)
    pool.add(version("a", "1"))
    with pytest.raises(ZeroDivisionError), pool.use("a"):
        raise ZeroDivisionError
    assert pool.in_flight("a") == 0
