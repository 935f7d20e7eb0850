"""The chat client against servers that misbehave: retries are bounded, refusals are typed, the key is sent and never shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from agentloop.engine.base import EngineFailure
from agentloop.engine.chat import ChatServer
from agentloop.errors import Mistake

Handler = Callable[[dict[str, Any]], Awaitable[web.StreamResponse]]
ASKED = [{"role": "user", "content": "hello"}]


def said(text: str | None, finish: str = "stop", **more: Any) -> web.Response:
    message = {"role": "assistant", "content": text}
    return web.json_response({"choices": [{"message": message, "finish_reason": finish}], **more})


@asynccontextmanager
async def fake_server(answer: Handler, **options: Any) -> AsyncIterator[tuple[ChatServer, list[dict[str, Any]]]]:
    """A server of ours that speaks the protocol, a client of it, and the bodies that it was sent."""
    asked: list[dict[str, Any]] = []

    async def chat(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json() | {"key": request.headers.get("Authorization")})
        return await answer(asked[-1])

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "first"}, {"id": "second"}]})

    application = web.Application()
    application.router.add_post("/v1/chat/completions", chat)
    application.router.add_get("/v1/models", models)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = ChatServer(f"http://127.0.0.1:{runner.addresses[0][1]}", **{"request_timeout": 0.5, "retries": 2, "pause": 0.0} | options)
    try:
        yield server, asked
    finally:
        await server.close()
        await runner.cleanup()


async def test_what_is_sent_and_what_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")

    async def answer(body: dict[str, Any]) -> web.Response:
        return said("hi", "length", usage={"prompt_tokens": 5, "completion_tokens": 2})

    async with fake_server(answer, model="large", key="SOME_KEY") as (server, asked):
        found = await server.complete(ASKED, max_tokens=9, temperature=0.5, seed=3)
    assert (found.text, found.finish, found.prompt_tokens, found.completion_tokens) == ("hi", "length", 5, 2)
    expected = {"model": "large", "messages": ASKED, "max_tokens": 9, "temperature": 0.5, "seed": 3, "key": "Bearer secret"}
    assert asked == [expected]
    assert "secret" not in server.name and server.name.startswith("large at 127.0.0.1:")


async def test_the_first_model_of_the_server_is_taken_where_none_is_named() -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        return said(None)

    async with fake_server(answer) as (server, asked):
        assert (await server.complete(ASKED, max_tokens=9, temperature=0)).text == ""
    assert asked[0]["model"] == "first" and asked[0]["key"] is None and "seed" not in asked[0]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_passing_fault_is_tried_again_a_bounded_number_of_times(status: int) -> None:
    left = 2

    async def answer(body: dict[str, Any]) -> web.Response:
        nonlocal left
        left -= 1
        return said("hi") if left < 0 else web.json_response({"error": "busy"}, status=status)

    async with fake_server(answer) as (server, asked):
        assert (await server.complete(ASKED, max_tokens=9, temperature=0)).text == "hi"
        assert len(asked) == 3
        left = 99
        with pytest.raises(EngineFailure, match=f"in 3 tries; last: HTTP {status}") as caught:
            await server.complete(ASKED, max_tokens=9, temperature=0)
        assert caught.value.kind == "connection" and len(asked) == 6


async def test_refusals_and_waits_are_typed_and_not_repeated() -> None:
    async def answer(body: dict[str, Any]) -> web.StreamResponse:
        if body["max_tokens"] == 1:
            return web.json_response({"error": {"message": "This model's maximum context length is 8"}}, status=400)
        if body["max_tokens"] == 2:
            return web.json_response({"error": "no such model"}, status=404)
        if body["max_tokens"] == 3:
            await asyncio.sleep(5)
        if body["max_tokens"] == 4:
            return web.json_response({"choices": []})
        return web.Response(text="<html>")

    kinds = []
    async with fake_server(answer) as (server, asked):
        for number in range(1, 6):
            with pytest.raises(EngineFailure) as caught:
                await server.complete(ASKED, max_tokens=number, temperature=0)
            kinds.append(caught.value.kind)
    assert kinds == ["context", "request", "timeout", "request", "request"] and len(asked) == 5


async def test_a_server_that_insists_on_the_newer_name_of_the_limit_gets_it() -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        if "max_tokens" in body:
            return web.json_response({"error": {"message": "Use 'max_completion_tokens' instead."}}, status=400)
        return said("hi")

    async with fake_server(answer) as (server, asked):
        for _ in range(2):
            assert (await server.complete(ASKED, max_tokens=9, temperature=0)).text == "hi"
    assert ["max_tokens" in body for body in asked] == [True, False, False]


def test_the_address_may_end_with_or_without_the_version() -> None:
    assert {ChatServer(f"http://h{end}").url for end in ("", "/", "/v1", "/v1/")} == {"http://h/v1"}


def test_a_key_that_is_not_set_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(Mistake, match="SOME_KEY is not set"):
        ChatServer("http://h", key="SOME_KEY")
