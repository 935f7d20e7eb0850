"""RISE on a tiny policy: accuracy of the first to the fifth answer, before the training and after it.

    python -m benchmarks.rise --work runs/rise --out benchmarks/results/rise.json

Runs `recipes/rise.yaml` as it is but for sizes and for the policy (`benchmarks.retry_policy`), then lets the untrained policy and the last
adapter answer every held-out problem five times in a row, told each time that they are wrong, whatever they said (`oracle: false`; nobody
is told when to stop). Of the same episodes: accuracy by turn (m1@t1 is the first), a majority vote over the five turns (m1@t5) and whether
any answer was right (p1@t5); beside them a majority over five first answers of separate episodes (m5@t1). Intervals at 95 %, clustered by
task, all seeds pooled; differences paired by task. A run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from agentloop.cli.main import run as agentloop
from agentloop.engine.adapter import adapter_version
from agentloop.engine.base import BASE
from agentloop.engine.launch import Machine
from agentloop.engine.open import open_engine
from agentloop.engine.settings import EngineSettings
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.evaluation.intervals import Cluster, paired_difference, proportion
from agentloop.sampling.group import Origin, sample_groups
from agentloop.sampling.prompt import Preface
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.render import Renderer
from agentloop.trace.tree import Tree
from benchmarks.retry_policy import LARGEST, TURNS, retry_folder

RECIPE = Path(__file__).parents[1] / "recipes/rise.yaml"
PROBLEMS = {"terms": 2, "largest": LARGEST}
PARALLEL = 5
"""First answers of one task that a majority is taken of: as many episodes are played of each."""

Episode = list[tuple[str, bool]]
"""Answer and whether it was right, turn by turn."""


@dataclass(frozen=True)
class Sizes:
    """How large a run is.

    Attributes:
        iterations: Rounds of sampling and training; each allows one turn more than the one before.
        tasks: Problems an iteration.
        updates: Optimiser steps an iteration.
        batch: Attempts a step.
        learning_rate: Of AdamW on the adapter.
    """

    iterations: int = 2
    tasks: int = 160
    updates: int = 40
    batch: int = 32
    learning_rate: float = 1.0e-3


class Played:
    """A sink in memory."""

    def __init__(self) -> None:
        self.fragments: dict[str, list[Tree]] = {}
        self.finished: set[tuple[str, int]] = set()

    def add(self, fragment: Tree) -> None:
        """Keep an episode."""
        self.fragments.setdefault(fragment.id, []).append(fragment)


def overrides(seed: int, sizes: Sizes) -> list[str]:
    """What is changed of the recipe, as `--set` has it."""
    turns = list(range(1, sizes.iterations + 1))
    changes: dict[str, Any] = {
        "model": retry_folder(),
        "seed": seed,
        "engine": "{kind: transformers}",
        "environment": "{id: retry, " + ", ".join(f"{name}: {value}" for name, value in PROBLEMS.items()) + "}",
        "prompt": '{examples: 0, system: ""}',
        "iterations": sizes.iterations,
        "stages.tries.tasks": sizes.tasks,
        "stages.tries.max_turns": f"{{by: iteration, values: {turns}}}",
        "stages.improved.tasks": sizes.tasks,
        "stages.train.updates": sizes.updates,
        "stages.train.batch_size": sizes.batch,
        "stages.train.learning_rate": sizes.learning_rate,
        "stages.dev.tasks": 40,
        "final": "[]",
    }
    return [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]


def trained(work: Path, seed: int, sizes: Sizes) -> Path:
    """The run's last adapter. Raises `SystemExit` if the run fails."""
    out = work / f"rise-{seed}"
    code = agentloop(["run", str(RECIPE), "--out", str(out), "--quiet", *overrides(seed, sizes)])
    if code != 0:
        raise SystemExit(f"seed {seed}: exit code {code}")
    (weights,) = (out / f"iterations/{sizes.iterations - 1:03d}").rglob("adapter_model.safetensors")
    return weights.parent


async def answers(adapter: Path | None, seed: int, work: Path) -> dict[str, list[Episode]]:
    """By held-out task `PARALLEL` episodes of `TURNS` answers, none of which is told that it is right."""
    model, options = retry_folder(), PROBLEMS | {"oracle": False, "attempts": TURNS}
    renderer = Renderer(AutoTokenizer.from_pretrained(model))
    settings = SampleSettings(samples=PARALLEL, temperature=1.0, max_tokens=12, max_turns=TURNS, concurrency=64, episodes=64)
    sink = Played()
    async with open_engine(EngineSettings(kind="transformers"), model, adapters=1, work_dir=work) as engine:
        serving = BASE
        if adapter is not None:
            await engine.load_adapter(version := adapter_version(adapter, "actor", 0))
            serving = version.name
        tasks = find("retry").make(**options).tasks("test")
        async with EnvironmentPool(find("retry"), options, 64) as pool:
            await sample_groups(
                tasks,
                engine=engine,
                pool=pool,
                renderer=renderer,
                sink=sink,
                settings=settings,
                origin=Origin("answers", "retry", "test", seed=seed),
                adapter=serving,
                preface=Preface(system_prompt=""),
            )
    found: dict[str, list[Episode]] = {}
    for fragments in sink.fragments.values():
        tree = Tree.merge(fragments)
        for leaf in tree.leaves():
            found.setdefault(tree.task, []).append([(turn.text.strip(), turn.reward >= 1.0) for turn in tree.path(leaf.id)])
    return found


def majority(said: Sequence[tuple[str, bool]]) -> bool:
    """Whether the most frequent answer is right; of equally frequent ones the earliest."""
    chosen, _ = Counter(answer for answer, _ in said).most_common(1)[0]
    return dict(said)[chosen]


def metrics(episodes: dict[str, list[Episode]]) -> dict[str, dict[str, Cluster]]:
    """By metric and task how many were counted, and how many were right."""
    of_episode: dict[str, Callable[[Episode], bool]] = {
        f"turn {turn + 1}": lambda episode, turn=turn: episode[turn][1]  # type: ignore[misc]  # mypy infers no type for a default
        for turn in range(TURNS)
    }
    of_episode |= {"m1@t5": majority, "p1@t5": lambda episode: any(right for _, right in episode)}
    of_episode["same as the answer before"] = lambda episode: episode[1][0] == episode[0][0]
    found = {
        name: {task: Cluster(len(of_task), sum(map(right, of_task))) for task, of_task in episodes.items()}
        for name, right in of_episode.items()
    }
    found["m5@t1"] = {task: Cluster(1, float(majority([episode[0] for episode in of_task]))) for task, of_task in episodes.items()}
    return found


def pooled(several: Sequence[dict[str, dict[str, Cluster]]]) -> dict[str, dict[str, Cluster]]:
    """All seeds as one, by task."""
    return {
        name: {
            task: Cluster(sum(one[name][task].n for one in several), sum(one[name][task].total for one in several))
            for task in several[0][name]
        }
        for name in several[0]
    }


def result(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], seeds: Sequence[int], sizes: Sizes) -> dict[str, Any]:
    """Everything that was measured."""
    policies = {"before": pooled(before), "after": pooled(after)}
    rise = {
        name: asdict(paired_difference(found[f"turn {TURNS}"], found["turn 1"], shares=True)) | {"of": f"turn {TURNS} less turn 1"}
        for name, found in policies.items()
    }
    vote = {name: asdict(paired_difference(found["m1@t5"], found["turn 1"], shares=True)) for name, found in policies.items()}
    against_parallel = {name: asdict(paired_difference(found["m1@t5"], found["m5@t1"], shares=True)) for name, found in policies.items()}
    return {
        "what": (__doc__ or "").split("\n")[0],
        "sizes": asdict(sizes),
        "seeds": list(seeds),
        "accuracy": {
            policy: {name: asdict(proportion(clusters.values())) for name, clusters in found.items()} for policy, found in policies.items()
        },
        "last turn less first": rise,
        "m1@t5 less m1@t1": vote,
        "m1@t5 less m5@t1": against_parallel,
        "each seed": [
            {
                policy: {name: round(sum(c.total for c in of.values()) / sum(c.n for c in of.values()), 4) for name, of in found.items()}
                for policy, found in (("before", one), ("after", other))
            }
            for one, other in zip(before, after, strict=True)
        ],
    }


def table(found: dict[str, Any]) -> str:
    """The table of docs/methods/rise.md."""
    names = list(found["accuracy"]["before"])
    lines = ["| | untrained | after RISE | each seed |", "|---|---|---|---|"]
    for name in names:
        cells = []
        for policy in ("before", "after"):
            one = found["accuracy"][policy][name]
            cells.append(f"{100 * one['value']:.1f} % ({100 * one['low']:.1f} – {100 * one['high']:.1f})")
        each = ", ".join(f"{100 * one['after'][name]:.0f}" for one in found["each seed"])
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {each} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sizes, before, after = Sizes(), [], []
    for seed in arguments.seeds:
        adapter = trained(arguments.work, seed, sizes)
        before.append(metrics(asyncio.run(answers(None, seed, arguments.work))))
        after.append(metrics(asyncio.run(answers(adapter, seed, arguments.work))))
        print(table(result(before, after, arguments.seeds[: len(before)], sizes)), flush=True)
    found = result(before, after, arguments.seeds, sizes)
    found["machine"] = {
        "cores": len(Machine.here().cpus),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.rise " + " ".join(sys.argv[1:]),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
