"""A connection to one MCP server (Model Context Protocol), started by a command or reached at a URL, for code that is not async.

    server = McpServer(command=["uvx", "mcp-server-time"])       # or McpServer(url="http://127.0.0.1:8000/mcp")
    server.tools()                                               # {"get_current_time": ToolSchema, ...}
    server.call("get_current_time", {"timezone": "Europe/Paris"})
    server.close()

The package `mcp` speaks the protocol; its client wants one task that opens, uses and closes it, so it lives in a thread with an event loop
of its own. A server is started when it is first needed, and again after `close`. Every wait has a limit. What is wrong with a call is a
`ToolRefused`, which the model reads; what is wrong with the server (it does not start, dies, does not answer) is an
`EnvironmentFailure`: the connection is closed and the next use begins a new one.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import IO, Any

from agentloop.environment.failure import EnvironmentFailure, FailureKind
from agentloop.environment.json_schema import describe_schema
from agentloop.environment.signatures import ToolSchema
from agentloop.errors import Mistake, nearest

_CLOSE_TIMEOUT = 10.0
"""Seconds for a server to end; the client's own escalation (close the pipe, terminate, kill) takes up to four."""


class ToolRefused(ValueError):
    """The tool answered that it could not do what was asked; the message is its own."""


class McpServer:
    """One server with the tools that it offers. Not shared between threads; an environment instance has one of its own.

    Attributes:
        name: The command or URL, for messages.
        calls: Calls answered since it was started.
    """

    def __init__(
        self,
        command: str | Sequence[str] = (),
        url: str = "",
        *,
        env: Mapping[str, str] | None = None,
        tools: Sequence[str] | None = None,
        timeout: float = 30.0,
        start_timeout: float = 60.0,
        most_characters: int = 8000,
    ) -> None:
        """Say where the server is; nothing is started yet.

        Args:
            command: What starts it; it then speaks on its standard input and output. Text is split as a shell would.
            url: Where it is reached over HTTP (Streamable HTTP). Either this or `command`.
            env: Variables for the command, beside the few that every process needs. Nothing else of the environment is passed on.
            tools: Names of the tools to offer; by default all that it has.
            timeout: Longest call in seconds.
            start_timeout: Longest start, until the tools are listed, in seconds.
            most_characters: Characters of one result that the model is shown.

        Raises:
            ValueError: Neither a command nor a URL, or both.
        """
        words = shlex.split(command) if isinstance(command, str) else list(command)
        if bool(words) == bool(url):
            raise ValueError("an MCP server has either a command or a url" + (", not both" if url else ""))
        self.name = url or shlex.join(words)
        self.calls = 0
        self._words = words
        self._url = url
        self._env = dict(env or {})
        self._wanted = list(tools) if tools is not None else None
        self._timeout = timeout
        self._start_timeout = start_timeout
        self._most_characters = most_characters
        self._connection: _Connection | None = None
        self._schemas: dict[str, ToolSchema] = {}
        self._original: dict[str, str] = {}

    def tools(self) -> dict[str, ToolSchema]:
        """The tools by the name that a model can write (`get-sum` is `get_sum`); starts the server if need be.

        Raises:
            EnvironmentFailure: It does not start.
            Mistake: It cannot be found, or lacks a tool that was asked for.
        """
        if self._connection is None:
            self._start()
        return self._schemas

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The result of a tool as text.

        Raises:
            ToolRefused: The tool says that it failed.
            EnvironmentFailure: The server died or did not answer in time.
        """
        schema = self.tools()[name]
        # An optional argument that has its default is left out: "none given" and null are not the same to every server.
        given = {key: value for key, value in arguments.items() if key in schema.required or value != schema.defaults.get(key)}
        assert self._connection is not None
        try:
            result = self._connection.call(self._original[name], given, self._timeout)
        except TimeoutError:
            raise self._failure("environment.timeout", f"waited {self._timeout:g} s for its tool {name}, in vain") from None
        except Exception as error:
            if _is_answer(error):
                raise ToolRefused(str(error)) from error
            raise self._failure("environment.step", f"its tool {name} was not answered: {_reason(error)}") from error
        self.calls += 1
        text = "\n".join(_block(block) for block in result.content)
        if result.is_error:
            raise ToolRefused(text or "it failed without a message")
        if len(text) > self._most_characters:
            text = f"{text[: self._most_characters]}\n({len(text) - self._most_characters} more characters were left out)"
        return text

    def close(self) -> None:
        """End the connection, and the server if a command started it. May be called at any time, and again."""
        connection, self._connection = self._connection, None
        self.calls = 0
        if connection is not None:
            connection.close()

    def _start(self) -> None:
        self._connection = _Connection(self._words, self._url, self._env)
        try:
            offered = self._connection.open(self._start_timeout)
        except TimeoutError:
            raise self._failure("environment.timeout", f"waited {self._start_timeout:g} s for its list of tools, in vain") from None
        except FileNotFoundError as error:
            self.close()
            raise Mistake(f"the command of the MCP server is not there: {self._words[0]!r}") from error
        except Exception as error:
            raise self._failure("environment.create", f"it did not start: {_reason(error)}") from error
        known = [tool.name for tool in offered]
        for name in self._wanted or ():
            if name not in known:
                self.close()
                message = f"the MCP server {self.name!r} has no tool {name!r}"
                raise Mistake(message, expected=f"some of {', '.join(known)}", nearest=nearest(name, known))
        self._schemas, self._original = {}, {}
        for tool in offered:
            if self._wanted is not None and tool.name not in self._wanted:
                continue
            name = re.sub(r"\W", "_", tool.name, flags=re.ASCII)
            name = f"_{name}" if name[:1].isdigit() else name
            if name in self._original:
                self.close()
                raise Mistake(f"the MCP server {self.name!r} has two tools {name!r}; choose one by the option tools")
            self._schemas[name] = describe_schema(name, tool.description or "", tool.input_schema)
            self._original[name] = tool.name

    def _failure(self, kind: FailureKind, what: str) -> EnvironmentFailure:
        """A failure that names the server and its last words; the connection is closed, since nothing more can be expected of it."""
        said = self._connection.last_words() if self._connection is not None else ""
        self.close()
        return EnvironmentFailure(kind, f"MCP server {self.name!r}: {what}" + (f"; it last said: {said}" if said else ""))


class _Connection:
    """The client in its thread, from `open` to `close`."""

    def __init__(self, words: list[str], url: str, env: dict[str, str]) -> None:
        self._words, self._url, self._env = words, url, env
        self._errors: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by close()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._client: Any = None
        self._opened: Future[list[Any]] = Future()
        self._thread = threading.Thread(target=self._run, name=f"MCP {url or words[0]}", daemon=True)

    def open(self, seconds: float) -> list[Any]:
        """Connect and list the tools. Raises what the client raises, or TimeoutError."""
        self._thread.start()
        return self._opened.result(seconds)

    def call(self, name: str, arguments: dict[str, Any], seconds: float) -> Any:
        """The server's `CallToolResult`. Raises what the client raises, or TimeoutError."""
        if self._loop is None or not self._thread.is_alive():
            raise ConnectionError("the connection has ended")
        waiting = asyncio.run_coroutine_threadsafe(self._client.call_tool(name, arguments), self._loop)
        try:
            return waiting.result(seconds)
        except BaseException:
            waiting.cancel()
            raise

    def last_words(self) -> str:
        """The last line that the server wrote on standard error."""
        with suppress(ValueError, OSError):
            self._errors.seek(0)
            lines = self._errors.read()[-4000:].strip().splitlines()
            return lines[-1][:300] if lines else ""
        return ""

    def close(self) -> None:
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_TIMEOUT)
        self._errors.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(_innermost(error))

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        opening = asyncio.ensure_future(self._hold())
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not opening.done() and not self._opened.done():
                opening.cancel()  # closed before it was open
        await opening

    async def _hold(self) -> None:
        """Open the client, and keep it open until `close`; it must be closed by the task that opened it."""
        from mcp import Client, StdioServerParameters, stdio_client

        assert self._stop is not None
        where: Any = self._url
        if not self._url:
            parameters = StdioServerParameters(command=self._words[0], args=self._words[1:], env=self._env)
            where = stdio_client(parameters, errlog=self._errors)
        async with Client(where) as client:
            self._client = client
            tools: list[Any] = []
            cursor = None
            while True:
                page = await client.list_tools(cursor=cursor)
                tools += page.tools
                cursor = page.next_cursor
                if not cursor:
                    break
            self._opened.set_result(tools)
            await self._stop.wait()


def _is_answer(error: BaseException) -> bool:
    """Whether the server is there and answered with an error of the protocol (an unknown tool, invalid parameters)."""
    from mcp import MCPError
    from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND

    return isinstance(error, MCPError) and error.error.code in (INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND)


def _block(block: Any) -> str:
    """One block of a result as text: text as it is, anything else named by its kind."""
    if block.type == "text":
        return str(block.text)
    if block.type == "resource" and getattr(block.resource, "text", None) is not None:
        return str(block.resource.text)
    kind = getattr(block, "mime_type", None) or getattr(block, "uri", "")
    return f"[{block.type} {kind}]".replace(" ]", "]")


def _innermost(error: BaseException) -> BaseException:
    """What really happened, out of the groups that task groups wrap it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _reason(error: BaseException) -> str:
    inner = _innermost(error)
    return f"{type(inner).__name__}: {inner}".rstrip(": ")[:300]
