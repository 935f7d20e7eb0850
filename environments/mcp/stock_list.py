"""A small MCP server, a shop's stock list: `price` and `stock`. It needs the package `mcp` alone.

Run as a program it serves on standard input and output, or over HTTP at 127.0.0.1 with `--http PORT`.
"""

from __future__ import annotations

import random
import sys
from typing import Any

THINGS = ("apple", "bottle", "candle", "drum", "envelope", "fork", "glove", "hammer", "inkwell", "jar", "kettle", "lamp")


def price_of(thing: str) -> int:
    """Cents."""
    return random.Random(f"price {thing}").randint(20, 999)


def stock_of(thing: str) -> int:
    """How many there are."""
    return random.Random(f"stock {thing}").randint(1, 99)


def serve(port: int | None = None) -> None:
    """Serve until the client leaves (standard input and output), or for ever at 127.0.0.1:`port`."""
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    server: Any = MCPServer("stock-list", log_level="WARNING")

    def known(thing: str) -> str:
        if thing not in THINGS:
            raise ToolError(f"there is no {thing!r}; there are {', '.join(THINGS)}")
        return thing

    @server.tool()
    def price(thing: str) -> int:
        """The price of one piece in cents."""
        return price_of(known(thing))

    @server.tool()
    def stock(thing: str) -> int:
        """How many pieces are in stock."""
        return stock_of(known(thing))

    if port is None:
        server.run()
    else:
        server.run("streamable-http", host="127.0.0.1", port=port)


if __name__ == "__main__":
    serve(int(sys.argv[sys.argv.index("--http") + 1]) if "--http" in sys.argv else None)
