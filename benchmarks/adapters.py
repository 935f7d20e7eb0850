"""Adapters in vLLM on this machine: their speed beside the base, what the adapter check sees by dtype, and what an idle server costs.

    python -m benchmarks.adapters --out benchmarks/results/adapters.json

For each configuration one server is started: float32 with the CPU plugin, float32 with vLLM's own operations (on a CPU), and bfloat16.
Speeds are those of 32 concurrent requests of one kind, base, one adapter, and half and half, so their ratios come from one server. The
check is run on random adapters of falling strength, served rightly and not at all (the base's log-probabilities under the adapter's name).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from agentloop.engine import check
from agentloop.engine.adapter import adapter_version
from agentloop.engine.base import BASE, AdapterVersion, Engine, GenerationRequest
from agentloop.engine.http import VLLMEngine
from agentloop.engine.local import TransformersEngine
from agentloop.engine.server import VLLMServer
from agentloop.engine.settings import EngineSettings
from agentloop.model import resolve
from benchmarks.generation import about_machine

CONCURRENCY = 32
STRENGTHS = (0.02, 0.005, 0.001)
"""Standard deviations of the adapters' B; the first changes a token's log-probability as much as a short training does."""

IDLE_SECONDS = 20.0
TOKENS = 32
"""Tokens of each of the 32 completions that speed is measured on."""

COMMON = 60
"""Ids that the prompts of all requests have in common, after a first one of their own."""

Prompts = Sequence[tuple[int, ...]]
"""The prompt ids of each of the concurrent requests."""


def prompts(vocabulary: int) -> Prompts:
    """Prompts for a model with so many ids: those of the middle, since special ones stand at either end; in turn where they are few."""
    ids = range(vocabulary // 4, vocabulary - vocabulary // 4)
    common = tuple(ids[place % len(ids)] for place in range(COMMON))
    return [(ids[(COMMON + index) % len(ids)], *common) for index in range(CONCURRENCY)]


def prompts_for(model_path: Path) -> Prompts:
    """Prompts for the model in a folder."""
    from transformers import AutoConfig

    return prompts(AutoConfig.from_pretrained(model_path).get_text_config().vocab_size)


def make_adapter(folder: Path, model_path: Path, strength: float, rank: int) -> Path:
    """A random adapter on all linear layers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(int(strength * 1e6))
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, strength)
    adapted.save_pretrained(folder)
    return folder


async def speed(engine: VLLMEngine, asked: Prompts, names: list[str], tokens: int) -> float:
    """Tokens a second of concurrent requests that use `names` in turn."""
    requests = [GenerationRequest(prompt, tokens, (), seed=index, adapter=names[index % len(names)]) for index, prompt in enumerate(asked)]
    started = time.monotonic()
    drawn = await asyncio.gather(*map(engine.generate, requests))
    return sum(len(generation.ids) for generation in drawn) / (time.monotonic() - started)


async def speeds(engine: VLLMEngine, asked: Prompts, adapter: str, repeats: int) -> dict[str, float]:
    """The best of each kind, in turns, so that other work on the machine hurts all alike."""
    kinds = {"base": [BASE], "adapter": [adapter], "mixed": [BASE, adapter]}
    best = dict.fromkeys(kinds, 0.0)
    for name in kinds:
        await speed(engine, asked, kinds[name], 4)
    for _ in range(repeats):
        for name in kinds:
            best[name] = max(best[name], await speed(engine, asked, kinds[name], TOKENS))
    return best | {"adapter_to_base": best["adapter"] / best["base"], "mixed_to_base": best["mixed"] / best["base"]}


async def mixed_error(engine: VLLMEngine, asked: Prompts, adapter: str) -> float:
    """Mean absolute error of base requests that share a batch with an adapter's, against the same server's scores."""
    requests = [GenerationRequest(prompt, 16, (), seed=index, adapter=(BASE, adapter)[index % 2]) for index, prompt in enumerate(asked[:8])]
    drawn = await asyncio.gather(*map(engine.generate, requests))
    errors: list[float] = []
    for request, generation in list(zip(requests, drawn, strict=True))[::2]:
        scored = await engine.score(request.prompt_ids + generation.ids)
        errors += [abs(a - b) for a, b in zip(generation.logprobs, scored[-len(generation.ids) :], strict=True)]
    return sum(errors) / len(errors)


async def checks(engine: Engine, asked: Prompts, model_path: Path, versions: list[AdapterVersion]) -> list[dict[str, Any]]:
    """What the check's statistics are when the adapter is served, and when the base is served in its place."""
    rows = []
    prefix = check.prefix_of(asked[0][1:], engine.info.max_model_len)
    for strength, version in zip(STRENGTHS, versions, strict=True):
        row: dict[str, Any] = {"strength": strength}
        for what, served in (("right", version.name), ("base instead", BASE)):
            requests = [GenerationRequest(prefix, check.DRAW_TOKENS, (), seed=seed, adapter=served) for seed in range(5)]
            drawn = await asyncio.gather(*map(engine.generate, requests))
            found, without = await asyncio.to_thread(
                check._forward, model_path, version.path, prefix, [generation.ids for generation in drawn]
            )
            logprobs = [value for generation in drawn for value in generation.logprobs]
            errors = [abs(a - b) for a, b in zip(logprobs, found, strict=True)]
            moved = [a - b for a, b in zip(found, without, strict=True)]
            row[what] = {
                "mean_error": sum(errors) / len(errors),
                "max_error": max(errors),
                "effect": sum(map(abs, moved)) / len(moved),
                "share": check._share(logprobs, without, moved),
            }
        rows.append(row)
    return rows


def cpu_seconds(group: int) -> float:
    """Processor time that the watchdog and everything below it have used."""
    watchdog = psutil.Process(group)
    times = [process.cpu_times() for process in [watchdog, *watchdog.children(recursive=True)]]
    return sum(one.user + one.system for one in times)


async def one_server(dtype: str, plugin: bool, model_path: Path, versions: list[AdapterVersion], repeats: int) -> dict[str, Any]:
    """Start a server, measure all, and stop it. Without `repeats` only what the check sees is measured."""
    settings = EngineSettings(kind="vllm", dtype=dtype, concurrency=CONCURRENCY, max_model_len=1024, max_lora_rank=16, memory_gib=1.0)
    settings = replace(settings, start_timeout=1800.0, request_timeout=1800.0)
    folder = versions[0].path.parent
    environment = {} if plugin else {"VLLM_PLUGINS": "none"}
    server = VLLMServer(settings, model_path, adapters=2, work_dir=folder / f"{dtype}-{plugin}", environment=environment)
    engine = VLLMEngine(server=server, adapters=2, request_timeout=1800.0)
    try:
        started = time.monotonic()
        await server.start()
        start_seconds = time.monotonic() - started
        await engine.connect(model_path, dtype=dtype)
        row: dict[str, Any] = {"dtype": dtype, "plugin": not server.slots_stick, "start_seconds": start_seconds}
        asked = prompts_for(model_path)
        if repeats:
            started = time.monotonic()
            await speed(engine, asked, [BASE], 1)
            row["first_completion_seconds"] = time.monotonic() - started
        for version in versions:
            await engine.load_adapter(version)
        row["mixed_base_mean_error"] = await mixed_error(engine, asked, versions[0].name)
        row["checks"] = await checks(engine, asked, model_path, versions)
        if not repeats:
            return row
        row["tokens_per_second"] = await speeds(engine, asked, versions[0].name, repeats)
        await asyncio.sleep(3.0)
        before = cpu_seconds(server.pid)
        await asyncio.sleep(IDLE_SECONDS)
        row["idle_cores"] = (cpu_seconds(server.pid) - before) / IDLE_SECONDS
        return row
    finally:
        await engine.close()


async def in_process(dtype: str, model_path: Path, versions: list[AdapterVersion]) -> dict[str, Any]:
    """The check's statistics with the transformers engine."""
    engine = await TransformersEngine.open(EngineSettings(dtype=dtype, max_model_len=1024), model_path, adapters=2)
    try:
        for version in versions:
            await engine.load_adapter(version)
        return {"dtype": dtype, "checks": await checks(engine, prompts_for(model_path), model_path, versions)}
    finally:
        await engine.close()


async def run(arguments: argparse.Namespace) -> None:
    """All configurations, one after another; what is measured is written as each ends."""
    model = resolve(arguments.model)
    with tempfile.TemporaryDirectory() as name:
        paths = [make_adapter(Path(name) / f"strength-{strength}", model.path, strength, 16) for strength in STRENGTHS]
        versions = [adapter_version(path, f"role{index}", 0) for index, path in enumerate(paths)]
        about = {"what": (__doc__ or "").split("\n")[0], "engine": arguments.engine, "model": model.name, "concurrency": CONCURRENCY}
        rows: list[dict[str, Any]] = []
        for dtype in arguments.dtypes:
            for plugin in (True, False) if dtype == "float32" and arguments.engine == "vllm" and arguments.repeats else (True,):
                if arguments.engine == "transformers":
                    rows.append(await in_process(dtype, model.path, versions))
                else:
                    rows.append(await one_server(dtype, plugin, model.path, versions, arguments.repeats))
                print(json.dumps(rows[-1]), flush=True)
                arguments.out.write_text(json.dumps(about | {"rows": rows} | about_machine(), indent=1) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm", help="transformers: without speeds")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--repeats", type=int, default=3, help="of the speeds; 0: the check's statistics alone")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
