"""The HTTP client against servers that misbehave: retries are bounded, refusals are typed, waits end and say what they waited for."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tokenizers import Tokenizer, models

from agentloop.engine import probe
from agentloop.engine.base import AdapterVersion, EngineFailure, GenerationRequest
from agentloop.engine.http import KEEP_ALIVE, VLLMEngine
from tests.servers import TinyServer, TinyWorld

REQUEST = GenerationRequest(prompt_ids=(1, 2, 3), max_tokens=4, stop_token_ids=(9,), seed=1)
Handler = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


def completion(ids: list[int], logprobs: list[float], **choice: Any) -> web.Response:
    answer = {"token_ids": ids, "logprobs": {"token_logprobs": logprobs}, **choice}
    return web.json_response({"choices": [answer], "usage": {"prompt_tokens_details": {"cached_tokens": 2}}})


def refused(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)


def sampled(temperature: float, *, raw: bool = False) -> web.Response:
    """One token with its two likeliest, as `logprobs=2` answers; logits 2 and 0."""
    cold = 1.0 if raw else temperature
    likeliest = -math.log1p(math.exp(-2.0 / cold))
    top = {"token_id:5": likeliest, "token_id:6": likeliest - 2.0 / cold}
    return web.json_response({"choices": [{"logprobs": {"top_logprobs": [top]}}]})


@asynccontextmanager
async def fake_server(generate: Handler, *, cards: list[dict[str, Any]] | None = None) -> AsyncIterator[tuple[VLLMEngine, list[Any]]]:
    """A server of ours in vLLM's place, and an engine connected to it; also the bodies of the completions that it was asked for."""
    asked: list[Any] = []

    async def completions(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("logprobs") == 2:
            return sampled(body["temperature"])
        asked.append(body)
        return await generate(request, body)

    async def list_models(request: web.Request) -> web.Response:
        return web.json_response({"data": cards or [{"id": "m", "root": "/somewhere/m", "max_model_len": 16}]})

    async def version(request: web.Request) -> web.Response:
        return web.json_response({"version": "0.0"})

    application = web.Application()
    application.router.add_post("/v1/completions", completions)
    application.router.add_get("/v1/models", list_models)
    application.router.add_get("/version", version)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    engine = VLLMEngine(f"http://127.0.0.1:{port}/", request_timeout=0.5, retries=2)
    try:
        await engine.connect()
        yield engine, asked
    finally:
        await engine.close()
        await runner.cleanup()


async def test_every_sampling_parameter_is_sent_so_that_no_default_of_the_server_counts() -> None:
    async def answer(request: web.Request, body: dict[str, Any]) -> web.Response:
        return completion([7, 9], [-0.5, -0.25], finish_reason="stop")

    async with fake_server(answer) as (engine, asked):
        generation = await engine.generate(REQUEST)
    (body,) = asked
    assert body["prompt"] == [1, 2, 3] and body["stop_token_ids"] == [9] and body["ignore_eos"] is True
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert {key: body[key] for key in neutral} == neutral
    assert body["skip_special_tokens"] is False and body["return_token_ids"] is True and body["logprobs"] == 0
    assert (generation.ids, generation.logprobs, generation.finish, generation.cached_tokens) == ((7, 9), (-0.5, -0.25), "stop", 2)


async def test_a_5xx_is_tried_again() -> None:
    async def answer(request: web.Request, body: dict[str, Any]) -> web.Response:
        return refused(503, "overloaded") if len(asked) < 3 else completion([7], [-1.0])

    async with fake_server(answer) as (engine, asked):
        assert (await engine.generate(REQUEST)).ids == (7,)
        assert len(asked) == 3 and engine.resent == {"HTTP 503": 2}


async def test_a_5xx_that_stays_is_given_up() -> None:
    async def down(request: web.Request, body: dict[str, Any]) -> web.Response:
        return refused(500, "EngineCore died")

    async with fake_server(down) as (engine, asked):
        with pytest.raises(
            EngineFailure, match=r"could not give a completion of up to 4 tokens in 3 tries; last: HTTP 500: EngineCore died"
        ) as caught:
            await engine.generate(REQUEST)
        assert (caught.value.kind, len(asked)) == ("connection", 3)


async def test_a_connection_that_breaks_is_tried_again() -> None:
    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if len(asked) == 1:
            assert request.transport is not None
            request.transport.close()
        return completion([7], [-1.0])

    async with fake_server(answer) as (engine, asked):
        assert (await engine.generate(REQUEST)).ids == (7,)
        assert len(asked) == 2 and engine.resent == {"ServerDisconnectedError": 1}


async def test_a_hung_server_is_given_up_once_with_what_was_waited_for() -> None:
    never = asyncio.Event()

    async def answer(request: web.Request, body: dict[str, Any]) -> web.Response:
        await never.wait()
        raise AssertionError

    async with fake_server(answer) as (engine, asked):
        with pytest.raises(EngineFailure, match=r"waited 0\.5 s for vLLM at http\S+ to give a completion of up to 4 tokens") as caught:
            await engine.generate(REQUEST)
        assert (caught.value.kind, len(asked)) == ("timeout", 1)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "This model's maximum context length is 16 tokens. However, you requested 99", "context"),
        (404, "The model `actor-000-1` does not exist.", "adapter"),
        (400, "Token id 99 is out of vocabulary", "request"),
        (401, "Unauthorized", "request"),
    ],
)
async def test_a_refusal_is_typed_and_never_sent_again(status: int, message: str, kind: str) -> None:
    async def answer(request: web.Request, body: dict[str, Any]) -> web.Response:
        return refused(status, message)

    async with fake_server(answer) as (engine, asked):
        with pytest.raises(EngineFailure, match=message[:20]) as caught:
            await engine.generate(REQUEST)
        assert (caught.value.kind, len(asked)) == (kind, 1)


async def test_a_server_without_token_ids_is_refused() -> None:
    async def answer(request: web.Request, body: dict[str, Any]) -> web.Response:
        return web.json_response({"choices": [{"text": "hello", "logprobs": None}]})

    async with fake_server(answer) as (engine, _):
        with pytest.raises(EngineFailure, match="no token ids or log-probabilities"):
            await engine.generate(REQUEST)


async def test_nobody_at_the_address_says_so() -> None:
    engine = VLLMEngine("http://127.0.0.1:9", retries=1)
    with pytest.raises(EngineFailure, match=r"vLLM at http://127\.0\.0\.1:9 could not give the list of its models in 2 tries") as caught:
        await engine.connect()
    assert caught.value.kind == "connection"
    await engine.close()


async def test_raw_logprobs_are_found_out() -> None:
    async def raw(method: str, path: str, body: dict[str, Any], *, what: str) -> dict[str, Any]:
        return json.loads(sampled(body["temperature"], raw=True).text or "")

    with pytest.raises(EngineFailure, match="--logprobs-mode processed_logprobs"):
        await probe.check_logprobs(raw, "m")


@pytest.mark.vllm
async def test_the_real_server_passes_the_probes_that_somebody_elses_must(tiny_server: TinyServer) -> None:
    engine = await tiny_server.connect()
    assert engine.info.max_model_len == 512
    await engine.close()


@pytest.mark.vllm
def test_an_idle_connection_is_given_up_before_the_server_closes_it() -> None:
    from vllm import envs

    assert KEEP_ALIVE < envs.VLLM_HTTP_TIMEOUT_KEEP_ALIVE


@pytest.mark.vllm
async def test_another_model_behind_the_url_is_refused(tiny_server: TinyServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Tokenizer(models.WordLevel({"x": 0}, unk_token="x")).save(str(other / "tokenizer.json"))
    engine = VLLMEngine(tiny_server.url)
    with pytest.raises(EngineFailure, match="whose tokenizer is another"):
        await engine.connect(other)
    await engine.close()


@pytest.mark.vllm
async def test_an_adapter_that_vllm_cannot_read_is_refused_with_its_words(
    tiny_server: TinyServer, tiny_world: TinyWorld, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    engine = await tiny_server.connect()
    with pytest.raises(EngineFailure, match="'broken-000-1'") as caught:
        await engine.load_adapter(AdapterVersion("broken-000-1", tmp_path, "1" * 64))
    assert caught.value.kind == "adapter"
    await engine.close()


@pytest.mark.vllm
async def test_a_long_prompt_comes_from_the_prefix_cache_the_second_time(tiny_server: TinyServer) -> None:
    engine = await tiny_server.connect()
    request = GenerationRequest(prompt_ids=tuple(range(20, 60)) * 8, max_tokens=2, stop_token_ids=(), seed=1)
    first, second = await engine.generate(request), await engine.generate(request)
    assert first.ids == second.ids
    # Ten whole blocks of 32 tokens, but for the one with the last token, which is always computed.
    assert second.cached_tokens == 288
    await engine.close()
