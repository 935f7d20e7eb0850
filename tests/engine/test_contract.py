"""The contract of `agentloop.engine.base`, the same tests over the scripted engine, transformers in-process and vLLM really serving."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from agentloop.engine.base import BASE, AdapterVersion, Engine, EngineFailure, GenerationRequest
from tests.servers import MAX_LEN, TinyWorld
from tests.tiny_model import END_ID, VOCABULARY

PROMPT = (1, *range(10, 60))
CLOSE = 2e-4
"""Float32 log-probabilities of two computations of the same thing, in nats."""


def ask(prompt: tuple[int, ...] = PROMPT, **changes: object) -> GenerationRequest:
    request = GenerationRequest(prompt_ids=prompt, max_tokens=16, stop_token_ids=(END_ID,), seed=5)
    return replace(request, **changes)  # type: ignore[arg-type]


async def test_info_says_what_runs(engine: Engine, tiny_world: TinyWorld) -> None:
    assert engine.info.model == str(tiny_world.model_path)
    assert engine.info.max_model_len == MAX_LEN
    assert engine.info.max_adapters == 4
    assert engine.info.kind in ("scripted", "transformers", "vllm")


async def test_every_id_has_the_logprob_that_scoring_gives_it(engine: Engine) -> None:
    generation = await engine.generate(ask())
    assert len(generation.logprobs) == len(generation.ids) > 0
    assert generation.prompt_tokens == len(PROMPT)
    scored = await engine.score(PROMPT + generation.ids)
    assert len(scored) == len(PROMPT) + len(generation.ids) - 1
    assert generation.logprobs == pytest.approx(scored[len(PROMPT) - 1 :], abs=CLOSE)


async def test_the_stop_token_is_the_last_id_and_has_a_logprob(engine: Engine) -> None:
    whole = await engine.generate(ask(stop_token_ids=(127,)))
    # Any id that is sure to come up can be the stop token: the fourth of what the same seed produces.
    stop = whole.ids[3]
    cut = await engine.generate(ask(stop_token_ids=(stop,)))
    if engine.info.kind == "scripted":
        assert cut.ids[-1] == stop and cut.finish == "stop" and stop not in cut.ids[:-1]
        return
    first = whole.ids.index(stop)
    assert cut.finish == "stop"
    assert cut.ids == whole.ids[: first + 1]
    assert cut.logprobs == pytest.approx(whole.logprobs[: first + 1], abs=CLOSE)


async def test_the_models_own_end_token_is_an_id_like_any_other(engine: Engine) -> None:
    """Only the request's stop tokens end a turn, not what the model repository declares as its end."""
    if engine.info.kind == "scripted":
        pytest.skip("a script has no end token of its own")
    drawn = await asyncio.gather(*(engine.generate(ask(stop_token_ids=(), seed=seed, max_tokens=60)) for seed in range(30)))
    inside = [generation for generation in drawn if END_ID in generation.ids[:-1]]
    assert inside, "no draw held the end token; the test needs more draws"
    assert all(generation.finish == "length" and len(generation.ids) == 60 for generation in drawn)


async def test_max_tokens_cuts_with_finish_length(engine: Engine) -> None:
    generation = await engine.generate(ask(max_tokens=3, stop_token_ids=(126,)))
    assert (len(generation.ids), generation.finish) == (3, "length")


async def test_the_same_seed_draws_the_same_alone_and_in_a_crowd(engine: Engine) -> None:
    alone = await engine.generate(ask(seed=11))
    crowd = await asyncio.gather(*(engine.generate(ask(seed=seed)) for seed in (3, 11, 4, 11)))
    assert crowd[1].ids == crowd[3].ids == alone.ids
    assert len({generation.ids for generation in crowd}) == 3


async def test_requests_of_different_lengths_share_a_batch(engine: Engine) -> None:
    prompts = [PROMPT[: 5 + 7 * index] for index in range(7)]
    together = await asyncio.gather(*(engine.generate(ask(prompt, seed=2)) for prompt in prompts))
    for prompt, generation in zip(prompts, together, strict=True):
        scored = await engine.score(prompt + generation.ids)
        assert generation.logprobs == pytest.approx(scored[len(prompt) - 1 :], abs=CLOSE)


async def test_logprobs_are_those_after_temperature(engine: Engine) -> None:
    if engine.info.kind == "scripted":
        pytest.skip("the scripted rule is independent of the temperature, as documented")
    greedy = await engine.generate(ask(temperature=0, max_tokens=1))
    others = await engine.score((*PROMPT, greedy.ids[0]))
    cold = await engine.generate(ask(temperature=0.05, max_tokens=1))
    assert greedy.logprobs[0] == pytest.approx(others[-1], abs=CLOSE)
    assert cold.ids == greedy.ids
    assert cold.logprobs[0] > greedy.logprobs[0] / 2


async def test_logprobs_are_those_after_truncation(engine: Engine) -> None:
    if engine.info.kind == "scripted":
        pytest.skip("the scripted rule is independent of the truncation, as documented")
    only = await engine.generate(ask(top_k=1))
    assert only.logprobs == pytest.approx([0.0] * len(only.ids), abs=1e-6)
    nucleus = await engine.generate(ask(top_p=1e-6))
    assert nucleus.ids == only.ids


CHOICES = ("Score: 1", "Score: 10", "Judgement: Bad")
"""One is the beginning of another, so that the stop token has to be among what may follow."""


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(VOCABULARY.index(letter) for letter in text)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_a_constrained_completion_is_one_of_the_choices(engine: Engine, temperature: float) -> None:
    requests = [ask(seed=seed, temperature=temperature, choices=CHOICES, max_tokens=32) for seed in range(6)]
    free = ask(seed=3, temperature=temperature)
    alone = await engine.generate(free)
    *constrained, between = await asyncio.gather(*map(engine.generate, [*requests, free]))
    for generation in constrained:
        assert generation.ids in {(*ids_of(choice), END_ID) for choice in CHOICES}
        assert generation.finish == "stop" and len(generation.logprobs) == len(generation.ids)
    assert between.ids == alone.ids  # a free completion in the same batch is as free as before


async def test_logprobs_of_a_constrained_completion_are_those_of_what_was_allowed(engine: Engine) -> None:
    if engine.info.kind == "scripted":
        pytest.skip("the scripted rule is independent of the constraint, as documented")
    drawn = await engine.generate(ask(choices=("Score: 1", "Score: 10"), max_tokens=32))
    forced, free = drawn.logprobs[: len("Score: 1")], drawn.logprobs[len("Score: 1") :]
    assert forced == pytest.approx([0.0] * len(forced), abs=1e-5)
    scored = await engine.score((*PROMPT, *ids_of("Score: 10")))
    ended = await engine.score((*PROMPT, *ids_of("Score: 1"), END_ID))
    odds = scored[-1] - ended[-1] if drawn.ids[-2] == ids_of("0")[0] else ended[-1] - scored[-1]
    assert free[0] == pytest.approx(-math.log1p(math.exp(-odds)), abs=CLOSE)


async def test_a_constrained_completion_that_is_cut_is_the_beginning_of_a_choice(engine: Engine) -> None:
    generation = await engine.generate(ask(choices=CHOICES, max_tokens=3))
    assert generation.finish == "length"
    assert generation.ids in {ids_of(choice[:3]) for choice in CHOICES}


async def test_base_and_adapters_mix_in_one_batch(engine: Engine, tiny_world: TinyWorld) -> None:
    first, second = tiny_world.versions[:2]
    await engine.load_adapter(first)
    await engine.load_adapter(second)
    names = [BASE, first.name, second.name] * 4
    drawn = await asyncio.gather(*(engine.generate(ask(adapter=name, seed=index)) for index, name in enumerate(names)))
    for name, generation in zip(names, drawn, strict=True):
        scored = await engine.score(PROMPT + generation.ids, name)
        assert generation.logprobs == pytest.approx(scored[len(PROMPT) - 1 :], abs=CLOSE)
    other = await engine.score(PROMPT + drawn[1].ids, BASE)
    assert max(abs(a - b) for a, b in zip(drawn[1].logprobs, other[len(PROMPT) - 1 :], strict=True)) > 0.05


async def test_loading_twice_and_unloading_twice_do_nothing(engine: Engine, tiny_world: TinyWorld) -> None:
    version = tiny_world.versions[0]
    await engine.load_adapter(version)
    await engine.load_adapter(version)
    assert await engine.adapters() == (version.name,)
    await engine.unload_adapter(version.name)
    await engine.unload_adapter(version.name)
    assert await engine.adapters() == ()


async def test_an_adapter_comes_back_after_it_was_unloaded(engine: Engine, tiny_world: TinyWorld) -> None:
    version = tiny_world.versions[0]
    await engine.load_adapter(version)
    before = await engine.score(PROMPT, version.name)
    await engine.unload_adapter(version.name)
    await engine.load_adapter(version)
    assert await engine.score(PROMPT, version.name) == pytest.approx(before, abs=CLOSE)


async def test_a_name_is_never_given_to_other_weights(engine: Engine, tiny_world: TinyWorld) -> None:
    first, second = tiny_world.versions[:2]
    await engine.load_adapter(first)
    await engine.unload_adapter(first.name)
    with pytest.raises(EngineFailure, match="new weights need a new name") as caught:
        await engine.load_adapter(AdapterVersion(first.name, second.path, second.content_hash))
    assert caught.value.kind == "adapter"


async def test_one_adapter_more_than_places_is_refused(engine: Engine, tiny_world: TinyWorld) -> None:
    for version in tiny_world.versions[:4]:
        await engine.load_adapter(version)
    with pytest.raises(EngineFailure, match="was started for 4") as caught:
        await engine.load_adapter(tiny_world.versions[4])
    assert caught.value.kind == "adapter"


async def test_an_unknown_adapter_is_refused(engine: Engine) -> None:
    with pytest.raises(EngineFailure, match="'nobody' is not loaded") as caught:
        await engine.generate(ask(adapter="nobody"))
    assert caught.value.kind == "adapter"
    with pytest.raises(EngineFailure):
        await engine.score(PROMPT, "nobody")


async def test_a_folder_without_an_adapter_is_refused(engine: Engine, tiny_world: TinyWorld) -> None:
    with pytest.raises(EngineFailure) as caught:
        await engine.load_adapter(AdapterVersion("ghost-000-0", tiny_world.model_path / "nothing", "0" * 64))
    assert caught.value.kind == "adapter"
    assert await engine.adapters() == ()


async def test_unloading_waits_for_requests_in_flight(engine: Engine, tiny_world: TinyWorld) -> None:
    version = tiny_world.versions[0]
    await engine.load_adapter(version)
    running = [asyncio.create_task(engine.generate(ask(adapter=version.name, seed=seed, max_tokens=40))) for seed in range(4)]
    await asyncio.sleep(0)
    await engine.unload_adapter(version.name)
    assert await engine.adapters() == ()
    assert all(generation.ids for generation in await asyncio.gather(*running))


async def test_a_prompt_that_fills_the_context_is_refused_by_kind(engine: Engine) -> None:
    with pytest.raises(EngineFailure, match="leaves no room") as caught:
        await engine.generate(ask(prompt=(7,) * MAX_LEN))
    assert caught.value.kind == "context"


async def test_a_completion_ends_where_the_context_ends(engine: Engine) -> None:
    generation = await engine.generate(ask(prompt=(7,) * (MAX_LEN - 2), max_tokens=50, stop_token_ids=(126,)))
    assert (len(generation.ids), generation.finish) == (2, "length")


async def test_a_crowd_larger_than_the_batch_is_answered_in_full(engine: Engine, tiny_world: TinyWorld) -> None:
    version = tiny_world.versions[1]
    await engine.load_adapter(version)
    requests = [ask(PROMPT[: 3 + seed % 9], seed=seed, adapter=(BASE, version.name)[seed % 2]) for seed in range(90)]
    drawn = await asyncio.gather(*map(engine.generate, requests))
    assert [generation.prompt_tokens for generation in drawn] == [len(request.prompt_ids) for request in requests]
    assert all(1 <= len(generation.ids) <= 16 for generation in drawn)


async def test_closing_twice_does_nothing(engine: Engine) -> None:
    await engine.close()
    await engine.close()
