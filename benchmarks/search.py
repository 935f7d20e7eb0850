"""A tree search one request at a time, as published code does it, against agentloop's concurrent one on the same vLLM server.

    python -m benchmarks.search --out benchmarks/results/search.json

First agentloop searches all trees as a `sample` stage does. The stored trees hold every request of that search to the last id. Then, in
turns, the same requests are made one at a time, tree by tree, each followed by what the published code (Agent-R's `mcts_utils`) does for
it (reset the environment, play the path again, step), and agentloop searches again. Both sides so have the same budget and the same
prompts; nothing is de-duplicated, so that none of the requests is missing from the trees. Before every pass the server's prefix cache is
emptied. What is reported is the median of the ratios of generated tokens a second of neighbouring passes, since a machine's speed drifts;
beside it stand the prompt tokens of each pass, how many of them were computed, and the share that came from the prefix cache.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from transformers import AutoTokenizer

from agentloop.engine.base import Engine, GenerationRequest
from agentloop.engine.http import VLLMEngine
from agentloop.engine.launch import Machine, resolved_dtype
from agentloop.engine.open import open_engine
from agentloop.engine.server import VLLMServer
from agentloop.engine.settings import EngineSettings
from agentloop.environment.base import Task
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.model import resolve
from agentloop.sampling.origin import Origin
from agentloop.sampling.search.forest import search_trees
from agentloop.sampling.search.settings import Expansion, MctsSettings
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.render import Renderer
from agentloop.trace.store import TreeWriter, read_trees
from agentloop.trace.tree import Tree

CONCURRENCY = 64
ENVIRONMENT = "textcraft"
OPTIONS = {"depth": 2}


@dataclass
class Pass:
    """One side's turn.

    Attributes:
        side: "agentloop" or "one at a time".
        seconds: Wall-clock seconds.
        requests: Requests made.
        generated: Tokens generated.
        prompt: Prompt tokens sent.
        cached: Of these, taken from the prefix cache.
    """

    side: str
    seconds: float = 0.0
    requests: int = 0
    generated: int = 0
    prompt: int = 0
    cached: int = 0

    @property
    def speed(self) -> float:
        """Generated tokens a second."""
        return self.generated / self.seconds

    def told(self) -> dict[str, Any]:
        """The pass and what follows from it."""
        return asdict(self) | {
            "tokens_per_second": round(self.speed, 2),
            "prompt_computed": self.prompt - self.cached,
            "cache_hit_rate": round(self.cached / max(1, self.prompt), 4),
        }


@dataclass(frozen=True)
class Bench:
    """What both sides share."""

    engine: Engine
    renderer: Renderer
    settings: MctsSettings
    trees: int

    async def concurrent(self, path: Path) -> Pass:
        """Search all trees with agentloop; they are left in `path`."""
        await self._forget()
        begun = time.monotonic()
        async with EnvironmentPool(find(ENVIRONMENT), OPTIONS, concurrency=CONCURRENCY) as pool:
            tasks = (await pool.tasks("train"))[: self.trees]
            with TreeWriter(path) as sink:
                report = await search_trees(
                    tasks,
                    engine=self.engine,
                    pool=pool,
                    renderer=self.renderer,
                    sink=sink,
                    settings=self.settings,
                    origin=Origin(stage="benchmark", environment=ENVIRONMENT, split="train"),
                )
                sink.finish()
        seconds = time.monotonic() - begun
        return Pass("agentloop", seconds, report.turns, report.generated_tokens, report.prompt_tokens, report.cached_tokens)

    async def one_at_a_time(self, trees: list[Tree]) -> Pass:
        """Make the requests of `trees` one after another, with the steps and the replays that the published code makes for each."""
        await self._forget()
        done = Pass("one at a time")
        environment = find(ENVIRONMENT).make(**OPTIONS)
        begun = time.monotonic()
        for tree in trees:
            task = Task(tree.task, tree.task_data)
            for turn in tree.turns:
                answer = await self.engine.generate(self._request(tree, turn.id))
                environment.reset(task)
                for before in tree.path(turn.id)[:-1]:
                    environment.step(before.action or "")
                environment.step(self.renderer.text(answer.ids))
                done.requests += 1
                done.generated += len(answer.ids)
                done.prompt += answer.prompt_tokens
                done.cached += answer.cached_tokens
        done.seconds = time.monotonic() - begun
        return done

    def _request(self, tree: Tree, turn: str) -> GenerationRequest:
        sample = self.settings.sample
        return GenerationRequest(
            prompt_ids=tuple(tree.context_ids(turn)),
            max_tokens=sample.max_tokens,
            stop_token_ids=self.renderer.stop_token_ids,
            temperature=sample.temperature,
            top_p=sample.top_p,
            top_k=sample.top_k,
            seed=tree[turn].draw.seed,
        )

    async def _forget(self) -> None:
        """Empty the prefix cache, so that no pass profits from the one before."""
        if isinstance(self.engine, VLLMEngine):
            async with aiohttp.ClientSession() as client, client.post(f"{self.engine.url}/reset_prefix_cache") as response:
                response.raise_for_status()


async def measure(bench: Bench, repeats: int, folder: Path) -> dict[str, Any]:
    """agentloop first and last, and between two of its passes one at a time."""
    passes: list[Pass] = []

    def keep(one: Pass) -> None:
        print(json.dumps(one.told()), flush=True)
        passes.append(one)

    keep(await bench.concurrent(folder / "recorded.parquet"))
    trees = list(read_trees(folder / "recorded.parquet"))
    for repeat in range(repeats):
        keep(await bench.one_at_a_time(trees))
        keep(await bench.concurrent(folder / f"{repeat}.parquet"))
    speeds = [one.speed for one in passes]
    ratios = [speeds[place + step] / speeds[place] for place in range(1, len(passes), 2) for step in (-1, 1)]
    print(f"ratio {statistics.median(ratios):.2f} of {[round(ratio, 2) for ratio in ratios]}", flush=True)
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "trees": len(trees),
        "requests": sum(len(tree.turns) for tree in trees),
        "passes": [one.told() for one in passes],
    }


@asynccontextmanager
async def started(kind: str, model: Path, folder: Path) -> AsyncIterator[Engine]:
    """The engine; of a vLLM server the prefix cache can be emptied, which is an endpoint of its development mode."""
    settings = replace(EngineSettings(kind=kind, concurrency=CONCURRENCY), request_timeout=3600.0, start_timeout=1800.0)  # type: ignore[arg-type]
    if kind != "vllm":
        async with open_engine(settings, model, adapters=0, work_dir=folder) as engine:
            yield engine
        return
    settings = replace(settings, max_model_len=4096)
    server = VLLMServer(settings, model, adapters=0, work_dir=folder, environment={"VLLM_SERVER_DEV_MODE": "1"})
    served = VLLMEngine(server=server, request_timeout=settings.request_timeout)
    try:
        await server.start()
        await served.connect(model, dtype=resolved_dtype(settings, Machine.here()))
        yield served
    finally:
        await served.close()


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the engine, measure, and return the result."""
    model = resolve(arguments.model)
    settings = MctsSettings(
        SampleSettings(max_tokens=arguments.max_tokens, max_turns=arguments.depth, concurrency=CONCURRENCY, max_failures=0.0),
        Expansion(arguments.width, deduplicate="none"),
        simulations=arguments.simulations,
        leaves=arguments.leaves,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with started(arguments.engine, model.path, folder) as engine:
            bench = Bench(engine, Renderer(AutoTokenizer.from_pretrained(model.path)), settings, arguments.trees)
            warm = replace(settings, simulations=1, sample=replace(settings.sample, max_turns=2))
            await replace(bench, settings=warm, trees=4).concurrent(folder / "warm-up.parquet")
            found = await measure(bench, arguments.repeats, folder)
            return {
                "what": (__doc__ or "").split("\n")[0],
                "engine": asdict(engine.info),
                "concurrency": CONCURRENCY,
                "environment": {"id": ENVIRONMENT, **OPTIONS},
                "search": {name: getattr(arguments, name) for name in ("simulations", "width", "depth", "leaves", "max_tokens")},
            } | found


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
    parser.add_argument("--engine", default="vllm", choices=("vllm", "transformers"))
    parser.add_argument("--trees", type=int, default=16)
    parser.add_argument("--simulations", type=int, default=2)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--leaves", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    result = asyncio.run(run(arguments)) | about_machine()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
