"""Environments whose tools are those of an MCP server; tasks and judgement are the environment's own.

    class Ask(McpEnvironment):
        \"\"\"Answer the question with the help of the tools.\"\"\"

        def __init__(self) -> None:
            super().__init__(McpServer(command=["uvx", "mcp-server-time"]))

        def tasks(self, split): ...

        def reset(self, task):
            super().reset(task)
            return task.data["question"]

        def answer(self, text): ...

The server's tools stand beside methods marked `@tool`, and are described, parsed and checked alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentloop.environment.base import Task
from agentloop.environment.mcp_server import McpServer, ToolRefused
from agentloop.environment.signatures import ToolSchema
from agentloop.environment.tools import ToolEnvironment

__all__ = ["McpEnvironment", "McpServer", "ToolRefused"]


class McpEnvironment(ToolEnvironment):
    """Base class of environments that are played with the tools of an MCP server."""

    step_timeout = 120.0

    def __init__(self, server: McpServer, *, restart: bool = True) -> None:
        """Play with a server.

        Args:
            server: Where it is; it is this instance's alone.
            restart: Whether an episode after one that used the server begins with a new one, so that nothing of one episode is
                seen in another. A server that keeps no state can do without, which saves its start.
        """
        self.server = server
        self._restart = restart

    def more_tools(self) -> Mapping[str, ToolSchema]:
        return self.server.tools()

    def call_tool(self, name: str, arguments: dict[str, Any]) -> str:
        return self.server.call(name, arguments)

    def reset(self, task: Task) -> str:
        """Make sure that the server is fresh. A subclass calls this first and returns its own observation."""
        if self._restart and self.server.calls:
            self.server.close()
        self.server.tools()
        return ""

    def close(self) -> None:
        self.server.close()
