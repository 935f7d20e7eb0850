"""OpenEnv servers as environments, against a real server from a virtual environment of its own (named by AGENTLOOP_OPENENV_PYTHON)."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import pytest

from agentloop import Task
from agentloop.environment.check import check
from agentloop.environment.failure import EnvironmentFailure
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.errors import Mistake

PYTHON = Path(os.environ.get("AGENTLOOP_OPENENV_PYTHON") or platformdirs.user_cache_path("agentloop") / "openenv" / "bin" / "python")
INSTALL = f"python -m venv {PYTHON.parent.parent} && {PYTHON} -m pip install openenv-core"

needs_server = pytest.mark.skipif(not PYTHON.exists(), reason=f"needs openenv-core in a virtual environment of its own: {INSTALL}")

Start = Callable[..., str]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server, text or fields, and returns its address."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(kind: str, sessions: int = 8) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        program = Path(__file__).with_name("openenv_server.py")
        processes.append(subprocess.Popen([PYTHON, program, str(port), kind, str(sessions)], env={"PATH": os.environ["PATH"]}))
        deadline = time.monotonic() + 200
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return f"http://127.0.0.1:{port}"
            except OSError:
                assert processes[-1].poll() is None and time.monotonic() < deadline, "the server did not start"
                time.sleep(0.3)

    yield begin
    for process in processes:
        process.kill()
        process.wait()


@needs_server
@pytest.mark.slow
async def test_a_text_environment_keeps_the_protocol_and_its_failures_are_typed(start: Start) -> None:
    url = start("text", 3)  # a step that sleeps keeps its place until it wakes
    findings = [finding async for finding in check(find("openenv"), {"url": url, "observe": ["text"]}, episodes=6)]
    assert [finding for finding in findings if finding.passed is False] == [] and len(findings) > 5

    options = {"url": url, "observe": ["text"], "timeout": 2.0, "reset": {"greeting": "Say it."}}
    async with EnvironmentPool(find("openenv"), options, concurrency=4) as pool:
        async with pool.instance() as player:
            task = (await player.tasks("dev"))[0]
            assert await player.reset(task) == "Say it."
            assert player.system_prompt() and "act(" not in player.system_prompt()
            guess = await player.step("apple")
            if not guess.done:
                assert guess.observation == "Wrong."
                guess = await player.step("pear")
            assert (guess.observation, guess.done) == ("Right.", True) and player.success(guess.reward)
            await player.reset(task)
            with pytest.raises(EnvironmentFailure, match="the dictionary is lost"):
                await player.step("crash")
        async with pool.instance() as player:
            await player.reset(task)
            with pytest.raises(EnvironmentFailure, match="waited 2 s for step") as caught:
                await player.step("sleep")
            assert caught.value.kind == "environment.timeout"
        async with pool.instance() as player, pool.instance() as other:
            await player.reset(task)
            assert await other.reset(task) == "Say it.", "broken sessions are left, so that there is room"
            async with pool.instance() as third:
                with pytest.raises(EnvironmentFailure, match="has no room for another session.*max_concurrent_envs"):
                    await third.reset(task)


@needs_server
@pytest.mark.slow
def test_an_action_of_several_fields_is_a_call_that_is_checked(start: Start) -> None:
    game = find("openenv").make(url=start("fields"), prompt="Reach 10.")
    try:
        assert game.system_prompt().startswith("Reach 10.\n\nTools:\n- act(steps: int, direction: str = 'up'): Move by a number of steps.")
        assert game.reset(game.tasks("train")[0]) == "text: Which word?\ntries: 0"
        assert game.step("act(steps=12)").observation == "text: At 12\ntries: 12"
        assert game.step('act(steps="a")').observation.startswith("error: act: argument steps")
        assert game.step("up").observation.startswith("error: your message holds no tool call")
        last = game.step('{"name": "act", "arguments": {"steps": "2", "direction": "down"}}')
        assert (last.observation, last.reward, last.done) == ("text: At 10\ntries: 10", 1.0, True)
    finally:
        game.close()
    with pytest.raises(Mistake, match="has no field 'step'; expected one of"):
        find("openenv").make(url=game._session.url, field="step").system_prompt()  # type: ignore[attr-defined]


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(Mistake, match="needs the option url"):
        find("openenv").make()
    with pytest.raises(Mistake, match="no server of OpenEnv"):
        find("openenv").make(url="127.0.0.1:9")
    with pytest.raises(EnvironmentFailure, match="does not answer /schema") as caught:
        find("openenv").make(url="http://127.0.0.1:9").reset(Task("train-0", {"seed": 0}))
    assert caught.value.kind == "environment.create"
