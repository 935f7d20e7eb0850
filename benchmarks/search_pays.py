"""Goals of textcraft that are crafted at equal generated tokens: tree search, beam search, best-of-n and plain sampling by one policy.

    python -m benchmarks.search_pays --out benchmarks/results/search_pays.json

The policy is a bare model that is shown a few played goals. Each method may generate the same number of tokens a goal and ends with its
first success, so one pass tells for every smaller budget whether a goal was crafted within it: whether the tokens of its tree, those of
the last wave included, are no more. Candidates that were thrown away count like all others. All methods have the same goals, prompts,
decoding and limit of turns.

- `plain`: whole episodes one after another; the group of a recipe, and best-of-n where the environment's reward chooses.
- `best_of_n`: one episode; in each turn the candidate that the policy itself finds likeliest, by the mean log-probability of its tokens.
- `beam`: without rewards on the way nothing tells partial episodes apart, so those that are kept are drawn from all that differ.
- `mcts`: with the published settings (Agent-R: 4 candidates, c = 0.25), and with `revisits: end` and 8 candidates.

Passes are kept in the JSON as they end, and are not made again by the same command.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from agentloop.evaluation.intervals import Cluster, paired_difference, proportion
from agentloop.model import resolve
from agentloop.sampling.choice import frozen_tasks
from agentloop.sampling.origin import Origin
from agentloop.sampling.prompt import Preface, preface
from agentloop.sampling.search.estimate import Critic
from agentloop.sampling.search.forest import SearchSettings, search_trees
from agentloop.sampling.search.settings import BeamSettings, BestOfNSettings, Expansion, Limits, MctsSettings
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.ledger import Ledger
from agentloop.trace.render import Renderer
from agentloop.trace.store import TreeWriter, read_trees
from agentloop.trace.tree import Tree, Turn, Verdict
from benchmarks.search import about_machine

ENVIRONMENT = "textcraft"
PLAIN = "plain"
ENDLESS = 10_000
"""Episodes or simulations, where only the tokens are to be the limit."""


def methods(sample: SampleSettings, limits: Limits) -> dict[str, SearchSettings]:
    """What is compared, by name."""
    return {
        PLAIN: BestOfNSettings(sample, ENDLESS, limits),
        "mcts, revisits: end": MctsSettings(sample, Expansion(8, revisits="end"), limits, simulations=ENDLESS),
        "mcts, as published": MctsSettings(sample, Expansion(4), limits, simulations=ENDLESS),
        "best_of_n": BestOfNSettings(sample, 4, limits),
        "beam": BeamSettings(sample, 2, Expansion(4, disasters=False), limits),
    }


async def likelihood(tree: Tree, turn: str, *, seed: int) -> tuple[Verdict, Sequence[Turn]]:
    """A critic that asks nobody: how likely the policy found what it said, a token."""
    logprobs = tree[turn].logprobs
    return Verdict("likelihood", turn, sum(logprobs) / max(1, len(logprobs))), ()


@dataclass(frozen=True)
class Bench:
    """What all methods share."""

    engine: Engine
    renderer: Renderer
    pool: EnvironmentPool
    tasks: Sequence[Task]
    preface: Preface

    async def play(self, settings: SearchSettings, critic: Critic | None, *, seed: int) -> dict[str, tuple[int, bool, int]]:
        """Generated tokens, success and most turns of a path, by task."""
        with tempfile.TemporaryDirectory() as folder, TreeWriter(Path(folder) / "trees.parquet") as sink:
            await search_trees(
                self.tasks,
                engine=self.engine,
                pool=self.pool,
                renderer=self.renderer,
                sink=sink,
                settings=settings,
                origin=Origin(stage="pays", environment=ENVIRONMENT, split="train", seed=seed),
                preface=self.preface,
                critic=critic,
            )
            trees = read_trees(sink.finish())
            return {tree.task: (_generated(tree), any(turn.success for turn in tree.turns), len(tree.turns)) for tree in trees}


def _generated(tree: Tree) -> int:
    return Ledger.of_trees([tree], "pays").total().generated


def table(passes: Sequence[dict[str, Any]], budgets: Sequence[int]) -> list[dict[str, Any]]:
    """Share of goals that each method crafted within each budget, and how much that is above plain sampling, task by task."""

    def crafted(method: str, budget: int) -> dict[str, Cluster]:
        found: dict[str, list[bool]] = {}
        for one in passes:
            if one["method"] == method:
                for task, (generated, success, _) in one["tasks"].items():
                    found.setdefault(task, []).append(success and generated <= budget)
        return {task: Cluster(len(wins), sum(wins)) for task, wins in found.items()}

    rows = []
    for method in dict.fromkeys(one["method"] for one in passes):
        used = [min(generated, budgets[-1]) for one in passes if one["method"] == method for generated, _, _ in one["tasks"].values()]
        for budget in budgets:
            clusters, plain = crafted(method, budget), crafted(PLAIN, budget)
            rows.append(
                {"method": method, "budget": budget, "tokens": sum(min(one, budget) for one in used) / len(used)}
                | asdict(proportion(clusters.values()))
                | ({"above_plain": asdict(paired_difference(clusters, plain, shares=True))} if method != PLAIN and plain else {})
            )
    return rows


def as_markdown(rows: Sequence[dict[str, Any]], budgets: Sequence[int]) -> str:
    """The table of the page."""
    lines = ["| method |" + "".join(f" {budget:,} tokens |" for budget in budgets), "|---|" + "---|" * len(budgets)]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = [
            f" {100 * row['value']:.0f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f}) |" for row in rows if row["method"] == method
        ]
        lines.append(f"| {method} |" + "".join(cells))
    return "\n".join(lines)


async def run(arguments: argparse.Namespace, kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make the passes that are missing; each is written as it ends."""
    model = resolve(arguments.model)
    sample = SampleSettings(max_tokens=arguments.max_tokens, max_turns=arguments.turns, concurrency=arguments.concurrency)
    compared = methods(sample, Limits(tokens=arguments.budgets[-1], until_win=True))
    options = {"depth": arguments.depth}
    done = {(one["method"], one["seed"]) for one in kept}
    wanted = [(name, seed) for seed in range(arguments.seeds) for name in arguments.methods or compared if (name, seed) not in done]
    if not wanted:
        return kept
    settings = replace(EngineSettings.of({"kind": arguments.engine, "max_model_len": 2048}), concurrency=arguments.concurrency)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_engine(settings, model.path, adapters=0, work_dir=Path(folder)) as engine,
            EnvironmentPool(find(ENVIRONMENT), options, arguments.concurrency) as pool,
        ):
            before = await preface(pool, arguments.examples)
            shown = {task.id for task in (await pool.tasks("train")) if any(_goal(task) in said.content for said in before.examples)}
            tasks = frozen_tasks([task for task in await pool.tasks("train") if task.id not in shown], arguments.tasks)
            bench = Bench(engine, Renderer(AutoTokenizer.from_pretrained(model.path)), pool, tasks, before)
            for name, seed in wanted:
                begun = time.monotonic()
                found = await bench.play(compared[name], likelihood if name == "best_of_n" else None, seed=seed)
                kept.append({"method": name, "seed": seed, "seconds": round(time.monotonic() - begun, 1), "tasks": found})
                wins = sum(success for _, success, _ in found.values())
                print(f"{name}, seed {seed}: {wins} of {len(found)}, {kept[-1]['seconds']} s", flush=True)
                write(arguments, kept)
    return kept


def _goal(task: Task) -> str:
    return f"Goal: craft {task.id.replace('_', ' ')}."


def write(arguments: argparse.Namespace, passes: list[dict[str, Any]]) -> None:
    """The JSON, with all that the passes depend on."""
    result = {"what": (__doc__ or "").split("\n")[0]} | asked(arguments) | about_machine()
    result["versions"] = {name: metadata.version(name) for name in ("torch", "transformers")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = table(passes, arguments.budgets)
    arguments.out.write_text(json.dumps(result | {"rows": rows, "passes": passes}, indent=1) + "\n")


def asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a pass depends on beside its method and seed."""
    names = ("model", "engine", "depth", "tasks", "examples", "turns", "max_tokens", "budgets", "concurrency")
    return {"asked": {name: getattr(arguments, name) for name in names}}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--engine", default="vllm", choices=("vllm", "transformers"))
    parser.add_argument("--depth", type=int, nargs="+", default=[1])
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--examples", type=int, default=3)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=20)
    parser.add_argument("--budgets", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    kept: list[dict[str, Any]] = []
    if arguments.out.exists():
        earlier = json.loads(arguments.out.read_text())
        kept = earlier["passes"] if earlier["asked"] == asked(arguments)["asked"] else []
    passes = asyncio.run(run(arguments, kept))
    write(arguments, passes)
    print(as_markdown(table(passes, arguments.budgets), arguments.budgets))


if __name__ == "__main__":
    main()
