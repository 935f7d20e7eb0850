"""The chat client against servers that misbehave: retries are bounded, refusals are typed, the key is sent and never shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from agentloop.engine.base import EngineFailure
from agentloop.engine.chat import ChatAnswer, ChatServer
from agentloop.engine.structured import FIELDS, Field, StructuredOutputs
from agentloop.errors import Mistake
from tests.servers import TinyServer

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


LINES = ("Judgement: Good", "Judgement: Bad")
FIELD_OF = {"json_schema": "response_format", "choice": "structured_outputs", "guided_choice": "guided_choice"}


def obedient(body: dict[str, Any]) -> web.Response:
    """What a server says that takes the field: the last of the choices, which it finds where its kind of field has them."""
    if "response_format" in body:
        schema = body["response_format"]["json_schema"]["schema"]
        (key,) = schema["required"]
        return said(json.dumps({key: schema["properties"][key]["enum"][-1]}))
    return said(body.get("guided_choice", body.get("structured_outputs", {}).get("choice"))[-1])


async def judge(server: ChatServer, **options: Any) -> ChatAnswer:
    return await server.complete(ASKED, **{"max_tokens": 9, "temperature": 0, "choices": LINES} | options)


@pytest.mark.parametrize("field", FIELDS)
async def test_an_answer_is_held_to_the_choices_by_the_field_that_the_server_knows(field: Field) -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        return obedient(body) if FIELD_OF[field] in body else said("I think so")

    structured = StructuredOutputs(field)
    async with fake_server(answer, structured=structured) as (server, asked):
        first, second, free = await judge(server), await judge(server), await judge(server, choices=())
    assert [(found.text, found.held) for found in (first, second, free)] == [("Judgement: Bad", True)] * 2 + [("I think so", False)]
    assert [FIELD_OF[field] in body for body in asked] == [True, True, False]
    assert asked[0]["max_tokens"] > 9, "what the field wraps around a choice needs room"
    assert structured.told() == {"field": field, "held": 2, "ignored": 0, "refused": 0}


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_a_server_that_refuses_the_field_is_asked_without_it_from_then_on(status: int) -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        if "response_format" in body:
            return web.json_response({"error": {"message": "response_format: extra fields not permitted"}}, status=status)
        return said("Judgement: Good")

    structured = StructuredOutputs("json_schema")
    async with fake_server(answer, structured=structured, retries=1) as (server, asked):
        answers = [await judge(server) for _ in range(3)]
    assert {(found.text, found.held) for found in answers} == {("Judgement: Good", False)}
    with_field = ["response_format" in body for body in asked]
    assert with_field == ([True, False, False, False] if status < 500 else [True, True, False, False, False])
    assert (structured.held, structured.ignored, structured.refused) == (0, 0, 3) and "extra fields" in structured.refusal


async def test_many_at_once_that_are_refused_are_all_answered() -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        if "structured_outputs" in body:
            await asyncio.sleep(0.01)
            return web.json_response({"error": "unknown field"}, status=400)
        return said("Judgement: Good")

    structured = StructuredOutputs("choice")
    async with fake_server(answer, structured=structured) as (server, asked):
        await asyncio.gather(*(judge(server) for _ in range(5)))
        await asyncio.gather(*(judge(server) for _ in range(5)))
    assert structured.refused == 10 and sum("structured_outputs" in body for body in asked) == 5


async def test_a_server_that_overlooks_the_field_is_noticed() -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        return said("Well.\nJudgement: Good")

    structured = StructuredOutputs("guided_choice")
    async with fake_server(answer, structured=structured) as (server, _):
        found = await judge(server)
    assert (found.text, found.held) == ("Well.\nJudgement: Good", False), "to be read as strictly as any other"
    assert (structured.held, structured.ignored, structured.refused) == (0, 1, 0)


async def test_what_is_refused_with_and_without_the_field_is_refused() -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        return web.json_response({"error": "not today"}, status=403)

    structured = StructuredOutputs("json_schema")
    async with fake_server(answer, structured=structured) as (server, asked):
        with pytest.raises(EngineFailure, match="not today"):
            await judge(server)
    assert len(asked) == 2 and structured.taken is None and not structured.refused


async def test_a_server_that_took_the_field_before_does_not_refuse_it_now() -> None:
    broken = False

    async def answer(body: dict[str, Any]) -> web.Response:
        return web.json_response({"error": "moderated"}, status=400) if broken else obedient(body)

    structured = StructuredOutputs("json_schema")
    async with fake_server(answer, structured=structured) as (server, asked):
        await judge(server)
        broken = True
        with pytest.raises(EngineFailure, match="moderated"):
            await judge(server)
    assert len(asked) == 2 and structured.taken


async def test_a_server_that_cannot_be_reached_is_not_asked_twice_as_often(unused_tcp_port: int) -> None:
    server = ChatServer(f"http://127.0.0.1:{unused_tcp_port}", "large", retries=0, structured=StructuredOutputs("json_schema"))
    with pytest.raises(EngineFailure, match="in 1 tries") as caught:
        await judge(server)
    await server.close()
    assert caught.value.kind == "connection" and server.structured is not None and server.structured.taken is None


@given(text=st.text(), choices=st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_only_a_choice_is_read_as_one(text: str, choices: list[str]) -> None:
    structured = StructuredOutputs("json_schema")
    for choice in choices:
        written = json.dumps({"answer": choice})
        assert structured.read(written, choices) == choice and len(written.encode()) < structured.room(choices)
    for other in (text, [text], {"answer": text, "more": 1}, {"answer": [choices[0]]}, {"other": choices[0]}):
        assert structured.read(json.dumps(other), choices) is None
    if text not in choices:
        assert structured.read(json.dumps({"answer": text}), choices) is None
        assert StructuredOutputs("choice").read(text, choices) in (None, text.strip())


@pytest.mark.vllm
@pytest.mark.parametrize(("field", "held"), [("json_schema", True), ("choice", True), ("guided_choice", False)])
async def test_vllm_keeps_to_its_own_fields_and_overlooks_the_one_that_it_had_before(
    field: Field, held: bool, tiny_server: TinyServer
) -> None:
    structured = StructuredOutputs(field)
    server = ChatServer(tiny_server.url, structured=structured, request_timeout=60)
    room = 300 if field == "json_schema" else 40  # a random model writes much white space, which JSON allows
    answers = await asyncio.gather(*(judge(server, temperature=1.0, seed=seed, max_tokens=room) for seed in range(2)))
    await server.close()
    assert [found.held for found in answers] == [held, held] and all(found.text in LINES for found in answers if held)
    assert (structured.held, structured.ignored, structured.refused) == ((2, 0, 0) if held else (0, 2, 0))


def test_the_address_may_end_with_or_without_the_version() -> None:
    assert {ChatServer(f"http://h{end}").url for end in ("", "/", "/v1", "/v1/")} == {"http://h/v1"}


def test_a_key_that_is_not_set_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(Mistake, match="SOME_KEY is not set"):
        ChatServer("http://h", key="SOME_KEY")
