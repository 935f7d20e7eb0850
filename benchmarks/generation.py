"""Tokens a second of agentloop's sampling against the same requests sent straight to the same vLLM server.

    python -m benchmarks.generation --out benchmarks/results/generation.json

Both sides keep 32 episodes alive and wait the environment's latency between the turns of one. First agentloop plays groups of episodes as
a `sample` stage does (renderer, environment pool, engine, Parquet store); the stored trees hold every request to the last id. Then, in
turns, agentloop plays the same again and a bare aiohttp client sends those requests, episode by episode, with the same latency. Before
every pass the server's prefix cache is emptied. What is reported is the median of the ratios of neighbouring passes, since a machine's
speed drifts; single passes are in the JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import re
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from transformers import AutoTokenizer

from agentloop.engine.http import VLLMEngine
from agentloop.engine.launch import Machine, resolved_dtype
from agentloop.engine.server import VLLMServer
from agentloop.engine.settings import EngineSettings
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.model import resolve
from agentloop.sampling.group import Origin, sample_groups
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.render import Renderer
from agentloop.trace.store import TreeWriter, read_trees

CONCURRENCY = 32
LATENCIES = (0.0, 0.1)
ENVIRONMENT = Path(__file__).with_name("latency.py")
STEPS = re.compile(r"^vllm:iteration_tokens_total_count(?:\{[^}]*\})? (\S+)", re.MULTILINE)

Body = dict[str, Any]


@dataclass(frozen=True)
class Pass:
    """One side's turn: `tokens` generated in `seconds`, by `steps` of the engine, with `cpu_seconds` of this process.

    The last two do not depend on what else the machine does: a side that sends its requests late needs more steps for the same tokens.
    """

    side: str
    tokens: int
    seconds: float
    cpu_seconds: float
    steps: int

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


class Clock(NamedTuple):
    """Seconds, seconds of CPU of this process, and steps of the engine, at the beginning of a pass."""

    seconds: float
    cpu_seconds: float
    steps: int


@dataclass(frozen=True)
class Bench:
    """What both sides share."""

    engine: VLLMEngine
    renderer: Renderer
    settings: SampleSettings
    episodes: int

    async def sampled(self, latency: float, path: Path) -> Pass:
        """Play all episodes with agentloop; the trees are left in `path`."""
        clock = await self._clock()
        async with EnvironmentPool(find(str(ENVIRONMENT)), {"seconds": latency}, concurrency=CONCURRENCY) as pool:
            tasks = (await pool.tasks("train"))[: self.episodes]
            with TreeWriter(path) as sink:
                report = await sample_groups(
                    tasks,
                    engine=self.engine,
                    pool=pool,
                    renderer=self.renderer,
                    sink=sink,
                    settings=self.settings,
                    origin=Origin(stage="benchmark", environment="latency", split="train"),
                )
                sink.finish()
        return await self._pass("agentloop", report.generated_tokens, clock)

    async def direct(self, latency: float, episodes: list[list[Body]]) -> Pass:
        """Send the requests of `episodes` with nothing but an HTTP client; no id is stored, no log-probability looked at."""
        places = asyncio.Semaphore(CONCURRENCY)
        tokens = 0

        async def play(client: aiohttp.ClientSession, episode: list[Body]) -> None:
            nonlocal tokens
            async with places:
                for body in episode:
                    async with client.post(f"{self.engine.url}/v1/completions", json=body) as response:
                        response.raise_for_status()
                        tokens += (await response.json())["usage"]["completion_tokens"]
                    await asyncio.sleep(latency)

        clock = await self._clock()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=3600)) as client:
            await asyncio.gather(*(play(client, episode) for episode in episodes))
        return await self._pass("direct", tokens, clock)

    def requests(self, path: Path) -> list[list[Body]]:
        """Bodies of the requests that the trees in `path` were sampled with, by episode, in the order of turns."""
        episodes = []
        for tree in read_trees(path):
            for leaf in tree.leaves():
                episodes.append([self._body(tree.context_ids(turn.id), turn.draw.seed) for turn in tree.path(leaf.id)])
        return episodes

    def _body(self, ids: list[int], seed: int | None) -> Body:
        return {
            "model": "base",
            "prompt": ids,
            "max_tokens": self.settings.max_tokens,
            "temperature": self.settings.temperature,
            "seed": seed,
            "stop_token_ids": list(self.renderer.stop_token_ids),
            "ignore_eos": True,
            "logprobs": 0,
            "return_token_ids": True,
        }

    async def _clock(self) -> Clock:
        """Empty the prefix cache, so that no pass profits from the one before, and look at the clocks."""
        async with aiohttp.ClientSession() as client, client.post(f"{self.engine.url}/reset_prefix_cache") as response:
            response.raise_for_status()
        steps = await self._steps()
        return Clock(time.monotonic(), time.process_time(), steps)

    async def _pass(self, side: str, tokens: int, since: Clock) -> Pass:
        seconds, cpu_seconds = time.monotonic() - since.seconds, time.process_time() - since.cpu_seconds
        return Pass(side, tokens, seconds, cpu_seconds, await self._steps() - since.steps)

    async def _steps(self) -> int:
        """How many steps (batches) the engine has computed since it started."""
        async with aiohttp.ClientSession() as client, client.get(f"{self.engine.url}/metrics") as response:
            response.raise_for_status()
            found = STEPS.search(await response.text())
        if found is None:
            raise RuntimeError("vLLM's metrics do not tell how many steps it has computed")
        return int(float(found.group(1)))


async def measure(bench: Bench, latency: float, repeats: int, folder: Path) -> dict[str, Any]:
    """Both sides at one latency, in turns."""
    recorded = folder / f"recorded-{latency}"
    passes = [await bench.sampled(latency, recorded)]
    episodes = bench.requests(recorded)
    ratios = []
    for repeat in range(repeats):
        pair = {}
        for side in ("agentloop", "direct") if repeat % 2 else ("direct", "agentloop"):
            if side == "direct":
                pair[side] = await bench.direct(latency, episodes)
            else:
                pair[side] = await bench.sampled(latency, folder / f"{latency}-{repeat}")
            done = pair[side]
            print(
                f"latency {latency:g} s: {done.rate:7.1f} tokens/s, {done.steps} steps, {done.cpu_seconds:.2f} s of CPU {side}", flush=True
            )
            passes.append(pair[side])
        ratios.append(pair["agentloop"].rate / pair["direct"].rate)
    print(f"latency {latency:g} s: ratio {statistics.median(ratios):.3f} of {[round(ratio, 3) for ratio in ratios]}", flush=True)
    return {
        "latency_seconds": latency,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "episodes": len(episodes),
        "requests": sum(map(len, episodes)),
        "passes": [{**asdict(one), "tokens_per_second": one.rate} for one in passes],
    }


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the server, measure, and return the result."""
    model = resolve(arguments.model)
    settings = replace(
        EngineSettings(kind="vllm", concurrency=CONCURRENCY, max_model_len=1024), request_timeout=3600.0, start_timeout=1800.0
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The endpoint that empties the prefix cache is one of vLLM's for development.
        server = VLLMServer(settings, model.path, adapters=0, work_dir=folder, environment={"VLLM_SERVER_DEV_MODE": "1"})
        engine = VLLMEngine(server=server, request_timeout=settings.request_timeout)
        try:
            await server.start()
            await engine.connect(model.path, dtype=resolved_dtype(settings, Machine.here()))
            renderer = Renderer(AutoTokenizer.from_pretrained(model.path))
            play = SampleSettings(
                max_tokens=arguments.max_tokens,
                max_turns=arguments.turns,
                concurrency=CONCURRENCY,
                episodes=CONCURRENCY,
                max_failures=0.0,
            )
            bench = Bench(engine, renderer, play, arguments.episodes)
            await replace(bench, episodes=8).sampled(0.0, folder / "warm-up")
            rows = [await measure(bench, latency, arguments.repeats, folder) for latency in LATENCIES]
            return {"what": (__doc__ or "").split("\n")[0], "engine": asdict(engine.info), "concurrency": CONCURRENCY, "rows": rows}
        finally:
            await engine.close()


def about_machine() -> dict[str, Any]:
    """Processor, cores, Python, date and command, kept with every result."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "device": f"{cpu or platform.processor()}, {len(Machine.here().cpus)} cores",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m " + " ".join(["benchmarks." + Path(sys.argv[0]).stem, *sys.argv[1:]]),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    result = asyncio.run(run(arguments)) | about_machine()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
