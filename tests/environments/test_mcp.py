"""MCP servers as tools, against real servers over standard input and output and over HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("mcp", reason="needs the package mcp: pip install 'agentloop[mcp]'")

from agentloop import StepResult, Task
from agentloop.environment.base import SPLITS
from agentloop.environment.check import check
from agentloop.environment.failure import EnvironmentFailure
from agentloop.environment.mcp_tools import McpEnvironment, McpServer, ToolRefused
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find, shipped_folder
from agentloop.environment.tools import tool
from agentloop.errors import Mistake

SERVER = '''
import os, time
from mcp.server.mcpserver import MCPServer, Image
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("notes", log_level="WARNING")
notes = []

@server.tool(name="add-note")
def add_note(text: str, mark: str | None = None) -> str:
    """Write a note down."""
    notes.append((text, mark))
    return f"{len(notes)} notes, marked {mark}"

@server.tool()
def wait(seconds: float) -> str:
    """Wait."""
    time.sleep(seconds)
    return "waited"

@server.tool()
def die() -> str:
    """End the server."""
    import sys
    print("out of memory", file=sys.stderr, flush=True)
    os._exit(3)

@server.tool()
def refuse() -> str:
    """Refuse."""
    raise ToolError("not on a Sunday")

@server.tool()
def long() -> str:
    """A long text."""
    return "x" * 500

@server.tool()
def secret() -> str:
    """What the server can see of the environment."""
    return str(os.environ.get("HF_TOKEN")) + str(os.environ.get("NOTES"))

server.run()
'''

NOTES = '''
from agentloop import StepResult, Task, tool
from agentloop.environment.mcp_tools import McpEnvironment, McpServer


class Notes(McpEnvironment):
    """Keep notes."""

    def __init__(self, server: str, timeout: float = 20.0, restart: bool = True):
        import sys
        super().__init__(McpServer([sys.executable, server], env={"NOTES": "mine"}, timeout=timeout, most_characters=100), restart=restart)

    def tasks(self, split):
        return [Task(split)]

    def reset(self, task):
        super().reset(task)
        return "Begin."

    @tool
    def shout(self, text: str) -> str:
        return text.upper()

    def answer(self, text):
        return StepResult("", 1.0, True)
'''


@pytest.fixture
def notes(tmp_path: Path) -> tuple[str, str]:
    """An environment file and its server."""
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "notes.py").write_text(NOTES)
    return str(tmp_path / "notes.py"), str(tmp_path / "server.py")


async def test_a_servers_tools_are_shown_called_and_refused_beside_methods(notes: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "never passed on")
    others = set(psutil.Process().children(recursive=True))  # what other tests share, a vLLM server for example
    async with EnvironmentPool(find(notes[0]), {"server": notes[1], "timeout": 2.0}, concurrency=1) as pool:
        async with pool.instance() as player:
            assert await player.reset(Task("train")) == "Begin."
            assert "- shout(text: str) -> str\n- add_note(text: str, mark: str | None = None): Write a note down." in player.system_prompt()

            async def say(text: str) -> str:
                return (await player.step(text)).observation

            assert await say('add_note("milk")') == "1 notes, marked None"
            assert await say('{"name": "add_note", "arguments": {"text": "eggs", "mark": "red"}}') == "2 notes, marked red"
            assert await say('shout("a")\nadd_note(text="salt")') == "A\n3 notes, marked None"
            assert (await player.step("refuse()")).info["errors"] == {"raised": 1}
            assert await say("refuse()") == "error: refuse: Error executing tool refuse: not on a Sunday"
            assert (await say('add_note(txt="a")')).startswith("error: add_note: argument text is missing; there is no argument txt")
            assert await say("secret()") == "Nonemine"
            assert await say("long()") == "x" * 100 + "\n(400 more characters were left out)"

            await player.reset(Task("train"))
            assert await say('add_note("milk")') == "1 notes, marked None", "an episode sees nothing of the one before"
            with pytest.raises(EnvironmentFailure, match="out of memory") as caught:
                await player.step("die()")
            assert caught.value.kind == "environment.step"
        async with pool.instance() as player:
            await player.reset(Task("train"))
            with pytest.raises(EnvironmentFailure, match="waited 2 s for its tool wait") as caught:
                await player.step("wait(60)")
            assert caught.value.kind == "environment.timeout"
        async with pool.instance() as player:
            await player.reset(Task("train"))
            assert (await player.step('add_note("milk")')).observation == "1 notes, marked None", "a dead server is replaced"
        assert pool.failures == {"environment.step": 1, "environment.timeout": 1} and pool.created == 3
    assert set(psutil.Process().children(recursive=True)) <= others


@pytest.fixture
def stock_list() -> Iterator[str]:
    """The example's server over HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(shipped_folder() / "mcp" / "stock_list.py"), "--http", str(port)], env=dict(os.environ))
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "the server did not start"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


async def test_questions_with_a_server_keep_the_protocol(stock_list: str, tmp_path: Path) -> None:
    (tmp_path / "shop.jsonl").write_text("\n".join(json.dumps({"question": f"Question {n}?", "answer": n}) for n in range(40)))
    findings = [finding async for finding in check(find("mcp"), {"url": stock_list, "data": str(tmp_path / "shop.jsonl")}, episodes=6)]
    assert [finding for finding in findings if finding.passed is False] == [] and len(findings) > 5


def test_the_example_is_solved_by_its_demonstrations() -> None:
    shop = find("mcp").make()
    try:
        for split in SPLITS:
            for task in shop.tasks(split):
                shop.reset(task)
                assert [shop.step(action).reward for action in shop.demonstration(task) or ()][-1] == 1.0
    finally:
        shop.close()


def test_questions_of_a_file_are_answered_with_a_server_at_a_url(stock_list: str, tmp_path: Path) -> None:
    rows = [
        {"ask": f"How many cents does the {thing} cost?", "is": price} for thing, price in (("apple", 117), ("jar", 3.0), ("fork", "4"))
    ]
    (tmp_path / "shop.jsonl").write_text("\n".join(json.dumps({**row, "split": "dev"}) for row in rows + rows[:1]))
    options = {"url": stock_list, "data": str(tmp_path / "shop.jsonl"), "question": "ask", "answer": "is", "tools": ["price"], "turns": 2}
    shop = find("mcp").make(**options)
    try:
        apple, *others = shop.tasks("dev")
        assert len(others) == 2 and not shop.tasks("train") and "stock" not in shop.system_prompt()
        assert shop.reset(apple) == "How many cents does the apple cost?"
        assert shop.step('<tool_call>{"name": "price", "arguments": {"thing": "apple"}}</tool_call>') == StepResult(
            "117", info={"calls": [{"name": "price", "arguments": {"thing": "apple"}}]}
        )
        assert shop.step(" 117. ").reward == 1.0
        shop.reset(apple)
        assert "did you mean" not in shop.step('price(thing="ape")').observation
        assert shop.step('price(thing="apple")').truncated
    finally:
        shop.close()
    with pytest.raises(Mistake, match="did you mean 'price'"):
        find("mcp").make(**{**options, "tools": ["prices"]}).system_prompt()


def test_what_cannot_be_started_is_told_before_anything_plays(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="is not there: 'no-such-program'"):
        McpServer("no-such-program --x").tools()
    with pytest.raises(EnvironmentFailure, match="no module of that name"):
        (tmp_path / "broken.py").write_text("raise SystemExit('no module of that name')")
        McpServer([sys.executable, str(tmp_path / "broken.py")]).tools()
    with pytest.raises(EnvironmentFailure, match="it did not start") as caught:
        McpServer(url="http://127.0.0.1:9/mcp", start_timeout=10).tools()
    assert caught.value.kind == "environment.create"
    (tmp_path / "bad.jsonl").write_text('{"question": "a", "answr": "b"}')
    with pytest.raises(Mistake, match="bad.jsonl:1: there is no field 'answer'.*did you mean 'answr'"):
        find("mcp").make(command="x", data=str(tmp_path / "bad.jsonl"))
    with pytest.raises(ValueError, match="not both"):
        McpServer("x", "http://x")


def test_a_name_that_is_a_method_and_a_servers_tool_is_refused() -> None:
    class Both(McpEnvironment):
        """Both."""

        @tool
        def price(self) -> int:
            return 1

    both = Both(McpServer([sys.executable, str(shipped_folder() / "mcp" / "stock_list.py")]))
    try:
        with pytest.raises(Mistake, match="two tools 'price'"):
            both.system_prompt()
        with pytest.raises(ToolRefused, match="there is no 'x'"):
            both.server.call("stock", {"thing": "x"})
    finally:
        both.close()
