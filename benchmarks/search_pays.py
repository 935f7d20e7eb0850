"""Goals of textcraft that one policy crafts at equal generated tokens: by tree search, by beam search, by best-of-n and by plain sampling.

    python -m benchmarks.textcraft_policy --out runs/apprentice
    python -m benchmarks.search_pays --model runs/apprentice --out benchmarks/results/search_pays.json

Every method may generate the same number of tokens a goal. All that the policy generates counts, candidates that were thrown away included.
A method that has come to an end of its own without a success (its episode is over, its beam or its tree has ended) is begun again under
another seed, so that each can use all of its tokens; with its first success it stops. So one pass tells for every smaller budget too
whether a goal was crafted within it: whether what was generated up to the success, the whole last wave included, is no more. Goals,
prompts, decoding and the limit of turns are the same for all.

- `plain`: whole episodes one after another, which is best-of-n where the environment's reward chooses.
- `best-of-n a turn`: in each turn four candidates, of which the one is played that the policy itself finds likeliest, a token.
- `beam`: the two likeliest partial episodes, a token, four candidates each.
- `mcts, as published`: Agent-R's settings: 4 candidates, c = 0.25.
- `mcts, revisits: end`: the same, but a candidate that leads back to a state of its own path ends there.

Passes are kept in the JSON as they end, and are not made again by the same command. `--url` takes a vLLM server that runs already.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from agentloop.sampling.search.forest import SearchSettings, search_trees
from agentloop.sampling.search.settings import BeamSettings, BestOfNSettings, Expansion, Limits, MctsSettings
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.ledger import Ledger
from agentloop.trace.render import Renderer
from agentloop.trace.store import TreeWriter
from agentloop.trace.tree import Tree, Turn, Verdict
from benchmarks.search import about_machine
from benchmarks.textcraft_policy import TOLD

ENVIRONMENT = "textcraft"
PLAIN = "plain"
ENDLESS = 10_000
"""Episodes or simulations, where only the tokens are to be the limit."""


def methods(sample: SampleSettings) -> dict[str, SearchSettings]:
    """What is compared, by name."""
    return {
        PLAIN: BestOfNSettings(sample, ENDLESS),
        "mcts, as published": MctsSettings(sample, Expansion(4), simulations=ENDLESS),
        "mcts, revisits: end": MctsSettings(sample, Expansion(4, revisits="end"), simulations=ENDLESS),
        "best-of-n a turn": BestOfNSettings(sample, 4),
        "beam": BeamSettings(sample, 2, Expansion(4, disasters=False)),
    }


async def likelihood(tree: Tree, turn: str, *, seed: int) -> tuple[Verdict, Sequence[Turn]]:
    """A critic that asks nobody: how likely the policy found all that it said on the way, a token."""
    logprobs = [one for said in tree.path(turn) for one in said.logprobs or ()]
    return Verdict("likelihood", turn, sum(logprobs) / max(1, len(logprobs))), ()


@dataclass
class Spending:
    """What a method generated for one goal.

    Attributes:
        trees: What it grew, in order; only the last one may hold a success.
        generated: Tokens, up to the end of the last tree.
        crafted: Whether it ended with a success.
    """

    trees: list[Tree] = field(default_factory=list)
    generated: int = 0
    crafted: bool = False


async def spend(grow: Callable[[int, int], Awaitable[Tree]], budget: int) -> Spending:
    """Have trees grown, one after another, until one succeeds or the tokens are generated.

    Args:
        grow: Grows the tree of that number within so many tokens.
        budget: Generated tokens.
    """
    spent = Spending()
    while spent.generated < budget and not spent.crafted:
        tree = await grow(len(spent.trees), budget - spent.generated)
        tokens = Ledger.of_trees([tree], "pays").total().generated
        if not tokens:
            raise RuntimeError(f"a search of {tree.task} generated nothing, so that it would be begun again for ever")
        spent.trees.append(tree)
        spent.generated += tokens
        spent.crafted = any(turn.success for turn in tree.turns)
    return spent


def anatomy(trees: Sequence[Tree]) -> dict[str, int]:
    """What the tokens went into: trees; nodes that were expanded; candidates, of which so many did what a sibling did (`duplicates`), or
    were `refused` by the environment; candidates right `after a refusal`, and of these `refused again`; failures; turns by what cut them.
    """
    counts: Counter[str] = Counter(trees=len(trees), failures=sum(len(tree.failures) for tree in trees))
    for tree in trees:
        counts["expanded"] += len({turn.parent for turn in tree.turns})
        for turn in tree.turns:
            refused, after = _refused(turn), turn.parent is not None and _refused(tree[turn.parent])
            copies = turn.draw.copies
            counts["candidates"] += copies
            counts["duplicates"] += copies - 1
            counts["refused"] += copies * refused
            counts["after a refusal"] += copies * after
            counts["refused again"] += copies * (after and refused)
            if turn.truncated is not None:
                counts[f"cut: {turn.truncated}"] += 1
    return dict(counts)


def _refused(turn: Turn) -> bool:
    return bool(turn.info.get("errors"))


class InMemory:
    """A sink that keeps its trees."""

    def __init__(self) -> None:
        self.finished: set[tuple[str, int]] = set()
        self.trees: list[Tree] = []

    def add(self, fragment: Tree) -> None:
        self.trees.append(fragment)


@dataclass(frozen=True)
class Bench:
    """What all methods share."""

    engine: Engine
    renderer: Renderer
    pool: EnvironmentPool
    tasks: Sequence[Task]
    split: str
    budget: int

    async def play(self, settings: SearchSettings, *, seed: int) -> dict[str, Spending]:
        """One pass of a method: what it generated, by goal."""
        spent = await asyncio.gather(*(self._goal(task, settings, seed) for task in self.tasks))
        return {task.id: one for task, one in zip(self.tasks, spent, strict=True)}

    async def _goal(self, task: Task, settings: SearchSettings, seed: int) -> Spending:
        guided = isinstance(settings, BeamSettings) or (isinstance(settings, BestOfNSettings) and settings.width < ENDLESS)

        async def grow(number: int, tokens: int) -> Tree:
            sink = InMemory()
            await search_trees(
                [task],
                engine=self.engine,
                pool=self.pool,
                renderer=self.renderer,
                sink=sink,
                settings=replace(settings, limits=Limits(tokens=tokens, until_win=True)),
                origin=Origin(stage="pays", environment=ENVIRONMENT, split=self.split, iteration=f"{number:03d}", seed=seed),
                critic=likelihood if guided else None,
            )
            return sink.trees[0]

        return await spend(grow, self.budget)


def table(passes: Sequence[dict[str, Any]], budgets: Sequence[int]) -> list[dict[str, Any]]:
    """Share of goals that each method crafted within each budget, and how much that is above plain sampling, goal by goal.

    Args:
        passes: Each with `method`, `seed` and `tasks`: generated tokens and success, by goal.
        budgets: Generated tokens a goal, none above what the passes were allowed.
    """

    def crafted(method: str, budget: int) -> dict[str, Cluster]:
        found: dict[str, list[bool]] = {}
        for one in passes:
            if one["method"] == method:
                for task, (generated, success) in one["tasks"].items():
                    found.setdefault(task, []).append(success and generated <= budget)
        return {task: Cluster(len(wins), sum(wins)) for task, wins in found.items()}

    rows = []
    for method in dict.fromkeys(one["method"] for one in passes):
        for budget in budgets:
            clusters, plain = crafted(method, budget), crafted(PLAIN, budget)
            rows.append(
                {"method": method, "budget": budget}
                | asdict(proportion(clusters.values()))
                | ({"above_plain": asdict(paired_difference(clusters, plain, shares=True))} if method != PLAIN and plain else {})
            )
    return rows


def as_markdown(rows: Sequence[dict[str, Any]], budgets: Sequence[int]) -> str:
    """The table of docs/methods/agent-r.md."""

    def percent(estimate: dict[str, Any], form: str = ".0f") -> str:
        value, low, high = (format(100 * estimate[name], form) for name in ("value", "low", "high"))
        return f"{value} ({low} to {high})"

    lines = ["| method |" + "".join(f" {budget:,} tokens |" for budget in budgets) + " above plain |", "|---" * (len(budgets) + 2) + "|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        found = [row for row in rows if row["method"] == method]
        above = percent(found[-1]["above_plain"], "+.0f") if "above_plain" in found[-1] else ""
        lines.append(f"| {method} |" + "".join(f" {percent(row)} |" for row in found) + f" {above} |")
    return "\n".join(lines)


async def run(arguments: argparse.Namespace, kept: list[dict[str, Any]]) -> None:
    """Make the passes that are missing; each is written as it ends."""
    sample = SampleSettings(max_tokens=arguments.max_tokens, max_turns=arguments.turns, concurrency=8)
    compared = methods(sample)
    done = {(one["method"], one["seed"]) for one in kept}
    wanted = [(name, seed) for seed in range(arguments.seeds) for name in arguments.methods or compared if (name, seed) not in done]
    if not wanted:
        return
    model = resolve(arguments.model)
    settings = EngineSettings.of({"kind": arguments.engine, "url": arguments.url, "max_model_len": 2048})
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_engine(settings, model.path, adapters=0, work_dir=Path(folder)) as engine,
            EnvironmentPool(find(ENVIRONMENT), {"depth": arguments.depth}, 64) as pool,
        ):
            tasks = goals(arguments)
            renderer = Renderer(AutoTokenizer.from_pretrained(model.path))
            bench = Bench(engine, renderer, pool, tasks, "+".join(arguments.splits), arguments.budgets[-1])
            at_once = asyncio.Semaphore(arguments.at_once)

            async def make(name: str, seed: int) -> None:
                async with at_once:
                    begun = time.monotonic()
                    found = await bench.play(compared[name], seed=seed)
                seconds = round(time.monotonic() - begun, 1)
                trees = [tree for one in found.values() for tree in one.trees]
                tasks = {task: (one.generated, one.crafted) for task, one in found.items()}
                kept.append({"method": name, "seed": seed, "seconds": seconds, "anatomy": anatomy(trees), "tasks": tasks})
                print(f"{name}, seed {seed}: {sum(one.crafted for one in found.values())} of {len(found)}; {seconds} s", flush=True)
                keep(arguments, kept, trees)

            async with asyncio.TaskGroup() as group:
                for name, seed in wanted:
                    group.create_task(make(name, seed))


def goals(arguments: argparse.Namespace) -> list[Task]:
    """The goals that are compared on: some of those that the expert crafts in few actions, the same ones for every method and seed."""
    environment = find(ENVIRONMENT).make(depth=arguments.depth)
    tasks = [task for split in arguments.splits for task in environment.tasks(split)]
    return frozen_tasks([task for task in tasks if len(environment.demonstration(task) or ()) <= arguments.actions], arguments.tasks)


def keep(arguments: argparse.Namespace, passes: list[dict[str, Any]], trees: Sequence[Tree]) -> None:
    """Write the JSON and, where they are asked for, the trees of the last pass."""
    write(arguments, passes)
    if arguments.trees is not None:
        arguments.trees.mkdir(parents=True, exist_ok=True)
        with TreeWriter(arguments.trees / f"{passes[-1]['method']}-{passes[-1]['seed']}.parquet") as sink:
            for tree in trees:
                sink.add(tree)
            sink.finish()


def write(arguments: argparse.Namespace, passes: list[dict[str, Any]]) -> None:
    """The JSON, with all that the passes depend on."""
    result = {"what": (__doc__ or "").split("\n")[0]} | asked(arguments) | about_machine()
    told = Path(arguments.model) / TOLD
    result["policy"] = json.loads(told.read_text()) if told.exists() else arguments.model
    result["versions"] = {name: metadata.version(name) for name in ("torch", "transformers")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = table(passes, arguments.budgets)
    arguments.out.write_text(json.dumps(result | {"rows": rows, "passes": passes}, indent=1) + "\n")


def asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a pass depends on beside its method, its seed and the weights of the policy."""
    names = ("model", "engine", "depth", "splits", "actions", "tasks", "turns", "max_tokens", "budgets")
    return {"asked": {name: getattr(arguments, name) for name in names} | {"model": Path(arguments.model).name}}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="the policy: a folder that benchmarks.textcraft_policy made, or any model")
    parser.add_argument("--engine", default="vllm", choices=("vllm", "transformers"))
    parser.add_argument("--url", help="of a vLLM server that runs already")
    parser.add_argument("--depth", type=int, nargs="+", default=[1])
    parser.add_argument("--splits", nargs="+", default=["dev", "test"])
    parser.add_argument("--actions", type=int, default=5, help="most actions of the expert for a goal")
    parser.add_argument("--tasks", type=int, default=36)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--budgets", type=int, nargs="+", default=[60, 120, 240])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--at-once", type=int, default=1, help="passes side by side, which fills the engine's batch")
    parser.add_argument("--trees", type=Path, help="a folder in which the trees are kept")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    kept: list[dict[str, Any]] = []
    if arguments.out.exists():
        earlier = json.loads(arguments.out.read_text())
        kept = earlier["passes"] if earlier["asked"] == asked(arguments)["asked"] else []
    asyncio.run(run(arguments, kept))
    print(as_markdown(table(kept, arguments.budgets), arguments.budgets))


if __name__ == "__main__":
    main()
