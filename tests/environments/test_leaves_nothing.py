"""A thousand episodes in a row, over all environments that are cheap and installed, leave no process, socket, thread or file behind."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from pathlib import Path

import psutil
import pytest

from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.environment.rehearse import Script, play, write_script
from agentloop.errors import Mistake

EPISODES = 1000
CONCURRENCY = 8
CHEAP = {
    "babyai": {"level": "GoToLocal"},
    "calculator": {},
    "reasoning_gym": {"generator": ["chain_sum", "gcd"]},
    "retry": {},
    "textarena": {"game": ["FrozenLake-v0", "TicTacToe-v0"]},
    "textcraft": {"depth": 2},
}
"""Environments that answer in a millisecond, and options with which they do. The others are held to the same by their own `env check`."""


def held() -> dict[str, int]:
    """What this process holds, by kind."""
    gc.collect()
    process = psutil.Process()
    return {
        "child processes": len(process.children(recursive=True)),
        "open files": process.num_fds(),
        "sockets": len(process.net_connections()),
        "threads": process.num_threads(),
    }


@pytest.mark.slow
async def test_a_thousand_episodes_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    pools = []
    for name, options in CHEAP.items():
        try:
            pools.append(EnvironmentPool(find(name), options, CONCURRENCY))
        except Mistake as missing:
            print(f"not installed: {missing}")
    assert len(pools) >= 3
    scripts = [await _scripts(pool) for pool in pools]  # what all instances share is loaded now
    before = held()
    played = await asyncio.gather(
        *(
            _play(pool, scripts[place], number)
            for number in range(EPISODES)
            for place, pool in [(number % len(pools), pools[number % len(pools)])]
        )
    )
    assert sum(played) == EPISODES
    for pool in pools:
        await pool.close()
        assert not pool.failures and pool.closed == pool.created <= CONCURRENCY
    await asyncio.sleep(0.2)
    after = held()
    assert {kind: count - before[kind] for kind, count in after.items() if count > before[kind]} == {}
    assert os.listdir(tmp_path) == []


async def _scripts(pool: EnvironmentPool) -> list[Script]:
    async with pool.instance() as player:
        return [await write_script(player, "train", task) for task in (await player.tasks("train"))[:20]]


async def _play(pool: EnvironmentPool, scripts: list[Script], number: int) -> bool:
    async with pool.instance() as player:
        return bool((await play(player, scripts[number % len(scripts)])).outcomes)
