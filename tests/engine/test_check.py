"""The adapter check, against engines that serve the wrong thing on purpose."""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from agentloop.engine.base import BASE, AdapterVersion, Engine, Generation, GenerationRequest
from agentloop.engine.check import MEAN_BOUNDS, check_adapter, judge, prefix_of
from agentloop.engine.local import TransformersEngine
from agentloop.engine.settings import EngineSettings
from agentloop.errors import RunFailed
from tests.servers import ROLES, TinyServer, TinyWorld

PROBE = tuple(range(10, 50))


@pytest.fixture
def real(engine: Engine) -> Engine:
    """The engines that have weights."""
    if engine.info.kind == "scripted":
        pytest.skip("a script has no weights to check")
    return engine


async def test_the_right_adapter_passes_with_room_to_spare(real: Engine, tiny_world: TinyWorld) -> None:
    previous, version = tiny_world.versions[:2]
    await real.load_adapter(previous)
    await real.load_adapter(version)
    result = await check_adapter(real, version, tiny_world.model_path, PROBE)
    assert result.mean_error < MEAN_BOUNDS["float32"] / 10
    assert result.share == pytest.approx(1.0, abs=0.01)
    assert result.effect > 0.05
    assert result.tokens == 120
    if real.info.kind == "vllm":
        assert result.cached_tokens >= 256, "generation took nothing from the prefix cache, so the check proves nothing about it"


async def test_the_base_model_served_under_the_adapters_name_is_found_out(tiny_world: TinyWorld) -> None:
    """verl-project/verl#7495: the base was served for the whole run while the logs said LoRA."""
    engine = await TransformersEngine.open(EngineSettings(dtype="float32"), tiny_world.model_path, adapters=1)
    version = tiny_world.versions[0]
    await engine.load_adapter(version)
    engine._choose = lambda name: TransformersEngine._choose(engine, BASE)  # type: ignore[method-assign]
    with pytest.raises(RunFailed, match=r"does not generate with adapter .* share of -?0\.0"):
        await check_adapter(engine, version, tiny_world.model_path, PROBE)
    await engine.close()


async def test_another_adapters_weights_under_its_name_are_found_out(real: Engine, tiny_world: TinyWorld, tmp_path: Path) -> None:
    wrong, right = tiny_world.versions[2:4]
    await real.load_adapter(AdapterVersion("mixed-000-up", wrong.path, "0" * 64))
    with pytest.raises(RunFailed, match="a wrong or stale adapter is served"):
        await check_adapter(real, AdapterVersion("mixed-000-up", right.path, right.content_hash), tiny_world.model_path, PROBE)


@pytest.mark.vllm
async def test_a_stale_prefix_is_found_out_though_the_weights_are_right(tiny_server: TinyServer, tmp_path: Path) -> None:
    """One name and path for two versions, as engines do that load in place: the prefix of the first is still in the cache."""
    world = tiny_server.world
    engine = await tiny_server.connect()
    path = tmp_path / "in-place"
    prefix = prefix_of(PROBE, engine.info.max_model_len)
    version = AdapterVersion("reused-000-name", path, "0" * 64)
    shutil.copytree(world.versions[4].path, path)
    await engine.load_adapter(version)
    warm = GenerationRequest(prefix, max_tokens=1, stop_token_ids=(), seed=0, adapter=version.name)
    await engine.generate(warm)
    await engine.unload_adapter(version.name)
    shutil.copytree(world.versions[5].path, path, dirs_exist_ok=True)
    await engine.load_adapter(version)
    reused = await engine.generate(warm)
    assert reused.cached_tokens == 256, "this vLLM does not keep the prefixes of a reused name; the test cannot make one stale"
    scored = await engine.score(prefix + reused.ids, version.name)
    with pytest.raises(RunFailed, match="a wrong or stale adapter is served"):
        await check_adapter(engine, version, world.model_path, PROBE)
    assert len(scored) == len(prefix)
    await engine.unload_adapter(version.name)
    await engine.close()


@pytest.mark.vllm
async def test_base_and_adapters_in_one_batch_are_exact_with_every_slot_taken(tiny_server: TinyServer) -> None:
    """vLLM's own CPU operations read the last slot for base requests, and unloading does not empty a slot."""
    world = tiny_server.world
    engine = await tiny_server.connect()
    for version in world.versions[:4]:
        await engine.load_adapter(version)
    await engine.unload_adapter(world.versions[0].name)
    await engine.load_adapter(world.versions[4])
    # Five loads into 2 * ROLES + 1 slots: none is empty any more, though four adapters are loaded.
    assert 2 * ROLES + 1 == 5
    names = [BASE, *(version.name for version in world.versions[1:5])]
    requests = [GenerationRequest(PROBE, 24, (), seed=index, adapter=names[index % 5]) for index in range(20)]
    drawn = await asyncio.gather(*map(engine.generate, requests))
    for request, generation in zip(requests, drawn, strict=True):
        truth = await asyncio.to_thread(forward, world, request, generation)
        assert generation.logprobs == pytest.approx(truth, abs=1e-3), request.adapter
    for version in world.versions[1:5]:
        await engine.unload_adapter(version.name)
    await engine.close()


def forward(world: TinyWorld, request: GenerationRequest, generation: Generation) -> list[float]:
    """Log-probabilities of a completion by transformers and PEFT, independent of any engine."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(world.model_path, dtype=torch.float32)
    path = next((version.path for version in world.versions if version.name == request.adapter), None)
    if path is not None:
        model = PeftModel.from_pretrained(model, str(path))
    ids = torch.tensor([[*request.prompt_ids, *generation.ids]])
    with torch.no_grad():
        logprobs = model.eval()(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return logprobs.gather(1, ids[0, 1:, None])[-len(generation.ids) :, 0].tolist()


@pytest.mark.vllm
async def test_a_seeded_request_whose_prompt_is_read_in_pieces_is_the_same_alone_and_in_a_crowd(tiny_server: TinyServer) -> None:
    """vLLM on a CPU ends the whole server here without the plugin ("CPU Generator does not use offset")."""
    engine = await tiny_server.connect()
    requests = [GenerationRequest((5 + index, *PROBE * 11), 20, (), seed=index) for index in range(4)]
    alone = [await engine.generate(request) for request in requests]
    crowd = await asyncio.gather(*(engine.generate(replace(request, prompt_ids=request.prompt_ids)) for request in requests))
    assert [generation.ids for generation in crowd] == [generation.ids for generation in alone]
    await engine.close()


NOISE = {"float32": 2e-5, "bfloat16": 0.04}
"""Typical error of a served log-probability, as measured (docs/engines.md)."""


@pytest.mark.parametrize(("dtype", "effect"), [("float32", 0.02), ("float32", 0.5), ("bfloat16", 0.5)])
def test_judgement_tells_an_adapter_from_the_base_in_every_dtype(dtype: str, effect: float) -> None:
    random_numbers = random.Random(4)
    without = [random_numbers.uniform(-4, 0) for _ in range(120)]
    with_adapter = [value + random_numbers.gauss(0, effect) for value in without]
    served = [value + random_numbers.gauss(0, NOISE[dtype]) for value in with_adapter]
    result = judge("a", dtype, served, with_adapter, without)
    assert result.share is not None and result.mean_error < result.bound
    of_base = [value + random_numbers.gauss(0, NOISE[dtype]) for value in without]
    with pytest.raises(RunFailed):
        judge("a", dtype, of_base, with_adapter, without)


def test_an_adapter_that_does_nothing_yet_passes_without_a_share() -> None:
    """A fresh adapter is the base: there is nothing to tell them apart by."""
    values = [-0.5, -1.0, -2.0]
    result = judge("a", "float32", values, values, values)
    assert (result.share, result.effect, result.mean_error) == (None, 0.0, 0.0)


def test_not_a_number_does_not_pass() -> None:
    with pytest.raises(RunFailed):
        judge("a", "float32", [float("nan")], [-1.0], [-1.5])


def test_the_prefix_is_two_blocks_long_and_leaves_room() -> None:
    assert len(prefix_of((1, 2, 3), 4096)) == 288
    assert len(prefix_of((1, 2, 3), 128)) == 128 - 25
    with pytest.raises(ValueError, match="at least one id"):
        prefix_of((), 128)
