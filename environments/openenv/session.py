"""One session of an OpenEnv server: its WebSocket protocol, and the schema that it publishes of its actions.

A client connects to `ws://HOST/ws` and has an environment of its own there until it leaves. It sends `{"type": "reset" | "step" | "close",
"data": {...}}` and receives `{"type": "observation", "data": {"observation": {...}, "reward": number or null, "done": bool}}`, or
`{"type": "error", "data": {"message": ..., "code": ...}}`. `GET /schema` gives the JSON schema of actions, `GET /metadata` a name and a
description. (OpenEnv 0.3, `openenv/core/env_server/`.)
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from typing import Any, Literal

from agentloop.environment.failure import EnvironmentFailure
from agentloop.errors import Mistake

_LARGEST = 64 * 2**20
"""Bytes of one message."""


class ActionRefused(ValueError):
    """The server says that an action does not fit its schema; the message is the server's."""


class Session:
    """A connection to a server, made when it is first used, and made anew after it broke."""

    def __init__(self, url: str, timeout: float) -> None:
        """Args:
        url: The server, `http://127.0.0.1:8000`; nothing is asked yet.
        timeout: Longest answer in seconds.

        Raises:
            Mistake: The URL is none of HTTP or WebSocket.
        """
        scheme, _, rest = url.partition("://")
        secure = {"http": "", "ws": "", "https": "s", "wss": "s"}.get(scheme)
        if secure is None or not rest:
            raise Mistake("the option url is no server of OpenEnv", found=url, expected="for example http://127.0.0.1:8000")
        rest = rest.rstrip("/")
        self.url = f"http{secure}://{rest}"
        self._socket_url = f"ws{secure}://{rest}/ws"
        self._timeout = timeout
        self._socket: Any = None
        self._held = ExitStack()

    def get(self, path: str) -> dict[str, Any]:
        """What the server answers to GET. Raises `EnvironmentFailure` ("environment.create")."""
        import httpx

        try:
            answer = httpx.get(f"{self.url}{path}", timeout=self._timeout, trust_env=not _is_local(self.url))
            answer.raise_for_status()
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            what = f"OpenEnv server {self.url} does not answer {path}: {type(error).__name__}: {error}"
            raise EnvironmentFailure("environment.create", what) from error
        return found if isinstance(found, dict) else {}

    def ask(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """Send a message and return the data of its answer.

        Raises:
            ActionRefused: The server took the message but not the action.
            EnvironmentFailure: It is not there, left, did not answer in time, has no room, or its environment raised.
        """
        from websockets.exceptions import ConnectionClosed, WebSocketException

        try:
            if self._socket is None:
                self._socket = self._connect()
            # A server without room says so and leaves, perhaps before it is asked; what it said can still be read.
            with suppress(ConnectionClosed):
                self._socket.send(json.dumps({"type": kind, "data": data}))
            answer = json.loads(self._socket.recv(timeout=self._timeout))
        except TimeoutError as error:
            self.close()
            what = f"waited {self._timeout:g} s for {kind} of OpenEnv server {self.url}, in vain"
            raise EnvironmentFailure("environment.timeout", what) from error
        except (OSError, WebSocketException, ValueError) as error:
            self.close()
            where = "environment.reset" if kind == "reset" else "environment.step"
            what = f"OpenEnv server {self.url} broke off at {kind}: {type(error).__name__}: {error}"
            raise EnvironmentFailure(where, what) from error  # type: ignore[arg-type]
        if answer.get("type") == "error":
            self._raise(kind, answer.get("data") or {})
        return dict(answer.get("data") or {})

    def close(self) -> None:
        """Leave the server, which then closes its environment."""
        socket, self._socket = self._socket, None
        if socket is not None:
            with suppress(Exception):
                socket.send(json.dumps({"type": "close"}))
            with suppress(Exception):
                self._held.close()

    def _connect(self) -> Any:
        from websockets.sync.client import connect

        proxy: Literal[True] | None = None if _is_local(self.url) else True
        opening = connect(self._socket_url, open_timeout=self._timeout, close_timeout=5, max_size=_LARGEST, proxy=proxy)
        return self._held.enter_context(opening)

    def _raise(self, kind: str, data: dict[str, Any]) -> None:
        code, message = str(data.get("code")), str(data.get("message"))
        if code == "VALIDATION_ERROR" or "validation error" in message:
            raise ActionRefused(message)
        self.close()
        if code == "CAPACITY_REACHED":
            hint = "; raise its max_concurrent_envs, or lower the stage's concurrency"
            raise EnvironmentFailure("environment.reset", f"OpenEnv server {self.url} has no room for another session: {message}{hint}")
        where = "environment.reset" if kind == "reset" else "environment.step"
        raise EnvironmentFailure(where, f"OpenEnv server {self.url} failed at {kind} ({code}): {message}")  # type: ignore[arg-type]


def _is_local(url: str) -> bool:
    return any(f"://{host}" in url for host in ("127.0.0.1", "localhost", "[::1]"))
