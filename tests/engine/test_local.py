"""The transformers engine beyond the contract: the event loop stays live, waits end, and draws follow the distribution."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from agentloop.engine.base import EngineFailure, GenerationRequest
from agentloop.engine.batch import draw
from agentloop.engine.local import TransformersEngine
from agentloop.engine.settings import EngineSettings
from agentloop.errors import Mistake
from tests.servers import TinyWorld

SETTINGS = EngineSettings(dtype="float32")
LONG = GenerationRequest(prompt_ids=(5, 6, 7), max_tokens=480, stop_token_ids=(), seed=1)


@pytest_asyncio.fixture
async def local(tiny_world: TinyWorld) -> AsyncIterator[TransformersEngine]:
    made = await TransformersEngine.open(SETTINGS, tiny_world.model_path, adapters=1)
    yield made
    await made.close()


async def test_the_event_loop_goes_on_while_the_model_works(local: TransformersEngine) -> None:
    generating = asyncio.create_task(local.generate(replace(LONG, max_tokens=100)))
    turns = 0
    while not generating.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 10
    assert len(generating.result().ids) == 100


async def test_a_request_that_takes_too_long_names_what_was_waited_for_and_leaves_the_batch(tiny_world: TinyWorld) -> None:
    engine = await TransformersEngine.open(replace(SETTINGS, request_timeout=0.05), tiny_world.model_path, adapters=0)
    with pytest.raises(
        EngineFailure, match=r"waited 0\.05 s for the transformers engine to give a completion of up to 480 tokens"
    ) as caught:
        await engine.generate(LONG)
    assert caught.value.kind == "timeout"
    assert engine._pool.in_flight("base") == 0
    await engine.close()


async def test_a_cancelled_request_makes_room_for_others(local: TransformersEngine) -> None:
    cancelled = asyncio.create_task(local.generate(LONG))
    await asyncio.sleep(0.05)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert len((await local.generate(replace(LONG, max_tokens=5))).ids) == 5
    assert local._batches["base"].rows == []


async def test_closing_answers_those_who_still_wait(local: TransformersEngine) -> None:
    waiting = asyncio.create_task(local.generate(LONG))
    await asyncio.sleep(0.05)
    await local.close()
    with pytest.raises(EngineFailure, match="was closed") as caught:
        await waiting
    assert caught.value.kind == "crash"
    with pytest.raises(EngineFailure, match="was closed"):
        await local.generate(LONG)


async def test_a_model_that_fails_is_a_typed_failure_and_the_engine_goes_on(local: TransformersEngine) -> None:
    model, calls = local._model, []

    def breaks_once(*arguments: object, **keywords: object) -> object:
        if not calls:
            calls.append(1)
            raise RuntimeError("a kernel is missing")
        return model(*arguments, **keywords)

    breaks_once.device = model.device  # type: ignore[attr-defined]
    local._batch("base").model = breaks_once
    with pytest.raises(EngineFailure, match="RuntimeError: a kernel is missing") as caught:
        await local.generate(LONG)
    assert caught.value.kind == "crash"
    assert len((await local.generate(replace(LONG, max_tokens=5))).ids) == 5


async def test_ids_outside_the_vocabulary_are_refused(local: TransformersEngine) -> None:
    for prompt in ((), (5, 128), (-1,)):
        with pytest.raises(EngineFailure, match="outside the vocabulary of 128") as caught:
            await local.generate(replace(LONG, prompt_ids=prompt))
        assert caught.value.kind == "request"


async def test_a_wrong_folder_is_a_mistake_and_a_damaged_model_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="no config.json"):
        await TransformersEngine.open(SETTINGS, tmp_path, adapters=0)
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(EngineFailure, match="cannot load the model"):
        await TransformersEngine.open(SETTINGS, tmp_path, adapters=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.7}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.81}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0]),
    ],
)
def test_draws_follow_the_truncated_distribution_and_carry_its_logprobs(changes: dict[str, float], expected: list[float]) -> None:
    request = replace(GenerationRequest((1,), 1, ()), **changes)  # type: ignore[arg-type]
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log() + 3.0
    generator = torch.Generator().manual_seed(0)
    drawn = [draw(logits, request, generator) for _ in range(3000)]
    counts = Counter(token for token, _ in drawn)
    for token, probability in enumerate(expected):
        # Five standard errors of a share of 3,000 draws.
        assert counts[token] / 3000 == pytest.approx(probability, abs=5 * math.sqrt(probability * (1 - probability) / 3000) + 1e-9)
    assert all(logprob == pytest.approx(math.log(expected[token]), abs=1e-5) for token, logprob in drawn)
