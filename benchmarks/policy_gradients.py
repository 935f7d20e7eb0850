"""GRPO, DPO, SPEAR and SPEAR's ablations on the tiny policy: held-out success before and after, at equal environment steps.

    python -m benchmarks.policy_gradients --work runs/policy --out benchmarks/results/policy_gradients.json

Runs `grpo.yaml`, `dpo.yaml` and `spear.yaml` of `recipes` as they are but for sizes, world (the tiny policy in the terse calculator) and,
for SPEAR, schedules as long as the run. Every method samples the same tasks as often in every iteration; what they do with the episodes
differs. Measured are the untrained policy and each method's last adapter on the test split, at the sampling temperature, all seeds pooled:
intervals at 95 %, clustered by task, differences paired by task. A run goes on where it stopped, so the same command, called again, does
what is missing; `--most` bounds how many runs one call makes.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentloop.cli.main import run as agentloop
from agentloop.engine.launch import Machine
from agentloop.evaluation.measure import Tally, compare, tally
from agentloop.run.journal import Entry, Journal
from agentloop.trace.store import read_trees
from agentloop.trace.tree import Tree

RECIPES = Path(__file__).parents[1] / "recipes"

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "grpo": ("grpo", {}),
    "dr-grpo": ("grpo", {"stages.rows.normalise": "false", "stages.train.aggregate": "constant"}),
    "dpo": ("dpo", {}),
    "spear": ("spear", {}),
    "spear, no recalibration": ("spear", {"stages.train.replay.recalibrate": "false"}),
    "spear, no warm-up": ("spear", {"stages.train.imitation": 1}),
    "spear, no decay": ("spear", {"stages.rows.tool_reward": 0.1}),
}
"""Recipe and what is changed of it, by method."""

UNTRAINED = "untrained"
PLAY = "max_tokens: 24, max_turns: 6, concurrency: 64"


@dataclass(frozen=True)
class Sizes:
    """How large a run is.

    Attributes:
        iterations: Rounds of sampling and training.
        tasks: Tasks an iteration.
        samples: Episodes of each.
        learning_rate: Of AdamW on the adapter.
        epochs: Passes over the rows of an iteration; DPO, which has a batch of pairs, makes `updates`.
        batch: Rows an update.
        pairs, updates: Pairs an update of DPO, and updates an iteration.
        replay: B, the most rows that SPEAR replays at once.
        dev, test: Tasks of the measurements, each played twice.
    """

    iterations: int = 6
    tasks: int = 32
    samples: int = 8
    learning_rate: float = 1.0e-3
    epochs: float = 1.0
    batch: int = 64
    pairs: int = 32
    updates: int = 8
    replay: int = 64
    dev: int = 60
    test: int = 150


def overrides(method: str, seed: int, sizes: Sizes) -> list[str]:
    """What is changed of a recipe, as `--set` has it."""
    recipe, own = METHODS[method]
    final = [
        f"evaluate: {{id: test, split: test, tasks: {sizes.test}, samples: 2, temperature: 1, {PLAY}}}",
        f"evaluate: {{id: {UNTRAINED}, split: test, role: {UNTRAINED}, tasks: {sizes.test}, samples: 2, temperature: 1, {PLAY}}}",
    ]
    changes: dict[str, Any] = {
        "model": "tiny",
        "seed": seed,
        "engine": "{kind: transformers}",
        "environment": "{id: calculator, terse: true, levels: [1, 2, 3]}",
        "prompt": "{examples: 0}",
        "roles": f"{{{UNTRAINED}: {{adapter: false}}}}",
        "iterations": sizes.iterations,
        "stages.trees.tasks": sizes.tasks,
        "stages.trees.samples": sizes.samples,
        "stages.trees.max_tokens": 24,
        "stages.trees.temperature": 1,
        "stages.train.learning_rate": sizes.learning_rate,
        "stages.dev.tasks": sizes.dev,
        "stages.dev.temperature": 1,
        "stages.dev.max_tokens": 24,
        "final": "[" + ", ".join(f"{{{stage}}}" for stage in final) + "]",
    }
    if recipe == "dpo":
        changes |= {"stages.rows.size": sizes.pairs * sizes.updates, "stages.rows.pairs": sizes.samples // 2}
        changes |= {"stages.train.updates": sizes.updates, "stages.train.batch_size": sizes.pairs, "stages.gate.keep": "last"}
    else:
        changes |= {"stages.train.epochs": sizes.epochs, "stages.train.batch_size": sizes.batch}
    if recipe == "spear":
        ramp = f"over: {sizes.iterations - 1}"
        changes |= {
            "stages.rows.tool_reward": f"{{by: iteration, cosine: {{from: 0.1, to: 0.0, {ramp}}}}}",
            "stages.train.imitation": f"{{by: iteration, cosine: {{from: 0.0, to: 1.0, {ramp}}}}}",
            "stages.train.replay.size": sizes.replay,
        }
    return [word for name, value in (changes | own).items() for word in ("--set", f"{name}={value}")]


def run(method: str, seed: int, out: Path, sizes: Sizes) -> None:
    """Run a recipe in `out`, or go on with it. Raises `SystemExit` if it fails."""
    recipe = RECIPES / f"{METHODS[method][0]}.yaml"
    code = agentloop(["run", str(recipe), "--out", str(out), "--quiet", *overrides(method, seed, sizes)])
    if code != 0:
        raise SystemExit(f"{method}, seed {seed}: exit code {code}")


def folder(work: Path, method: str, seed: int) -> Path:
    """Where a run is kept."""
    return work / f"{method.replace(', ', '-').replace(' ', '-')}-{seed}"


def finished(out: Path) -> bool:
    """Whether the last measurement of a run is there."""
    return Journal(out / "journal.jsonl").finished(f"final/{UNTRAINED}") is not None


def trees(out: Path, stage: str) -> Iterator[Tree]:
    """What a final stage played."""
    return read_trees(out / f"iterations/final/trees/{stage}.parquet")


def entries(out: Path, stage: str, sizes: Sizes) -> list[Entry]:
    """A stage's lines of all iterations."""
    journal = Journal(out / "journal.jsonl")
    return [entry for at in range(sizes.iterations) if (entry := journal.finished(f"{at:03d}/{stage}")) is not None]


def of_run(method: str, seed: int, out: Path, sizes: Sizes) -> dict[str, Any]:
    """The numbers of one run, iteration by iteration."""
    training = [entry.about.get("training", {}) for entry in entries(out, "train", sizes)]
    facts = [trained.get("facts", {}) for trained in training]
    success = {name: tally(trees(out, name)).estimate("success") for name in (UNTRAINED, "test")}
    return {
        "method": method,
        "seed": seed,
        "success": {name: None if found is None else round(found.value, 4) for name, found in success.items()},
        "dev": [next(line["value"] for line in entry.measurements if line["name"] == "success") for entry in entries(out, "dev", sizes)],
        "turns": sum(entry.tokens.get("turns", 0) for entry in entries(out, "trees", sizes)),
        "updates": [fact.get("updates") for fact in facts],
        "replayed": [fact.get("replayed") for fact in facts],
        "baseline": [fact.get("baseline") for fact in facts],
        "entropy": [round(fact["entropy"]["first"], 4) for fact in facts if "entropy" in fact],
        "seconds": round(sum(entry.seconds for entry in Journal(out / "journal.jsonl").finished_entries()), 1),
    }


def result(work: Path, methods: list[str], seeds: list[int], sizes: Sizes) -> dict[str, Any]:
    """Everything that was measured of the methods."""
    tallies = {method: pooled(work, method, seeds, "test") for method in methods}
    before = pooled(work, methods[0], seeds, UNTRAINED)
    estimates = {name: found.estimate("success") for name, found in ({UNTRAINED: before} | tallies).items()}
    against = "grpo" if "grpo" in methods else methods[0]
    return {
        "what": (__doc__ or "").split("\n")[0],
        "sizes": asdict(sizes),
        "seeds": seeds,
        "success": {name: asdict(found) for name, found in estimates.items() if found is not None},
        "gain": {method: asdict(compare(found, before)["success"]) for method, found in tallies.items()},
        f"over {against}": {
            method: asdict(compare(found, tallies[against])["success"]) for method, found in tallies.items() if method != against
        },
        "runs": [of_run(method, seed, folder(work, method, seed), sizes) for method in methods for seed in seeds],
    }


def pooled(work: Path, method: str, seeds: list[int], stage: str) -> Tally:
    """The episodes of all seeds, by task."""
    return tally(tree for seed in seeds for tree in trees(folder(work, method, seed), stage))


def table(found: dict[str, Any]) -> str:
    """The table of docs/methods/spear.md."""
    lines = ["| | success | each seed | over the untrained policy |", "|---|---|---|---|"]
    for name, estimate in found["success"].items():
        key = UNTRAINED if name == UNTRAINED else "test"
        runs = [one for one in found["runs"] if one["method"] == (found["runs"][0]["method"] if name == UNTRAINED else name)]
        each = ", ".join(f"{100 * one['success'][key]:.0f}" for one in runs)
        gain = found["gain"].get(name)
        cell = f"{100 * gain['value']:+.1f} ({100 * gain['low']:+.1f} – {100 * gain['high']:+.1f})" if gain else "–"
        lines.append(
            f"| {name} | {100 * estimate['value']:.1f} % ({100 * estimate['low']:.1f} – {100 * estimate['high']:.1f}) | {each} | {cell} |"
        )
    return "\n".join(lines)


def _shown(estimate: dict[str, Any], sign: str = "") -> str:
    """In percent, with its interval."""
    value, low, high = (f"{100 * estimate[name]:{sign}.1f}" for name in ("value", "low", "high"))
    return f"{value} ({low} – {high})"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--iterations", type=int, default=Sizes.iterations)
    parser.add_argument("--most", type=int, default=99, help="most runs that this call makes")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sizes = Sizes(iterations=arguments.iterations)
    pairs = [(method, seed) for seed in arguments.seeds for method in arguments.methods]
    left = [(method, seed) for method, seed in pairs if not finished(folder(arguments.work, method, seed))]
    for method, seed in left[: arguments.most]:
        begun = time.monotonic()
        out = folder(arguments.work, method, seed)
        run(method, seed, out, sizes)
        print(json.dumps(of_run(method, seed, out, sizes) | {"wall": round(time.monotonic() - begun, 1)}), flush=True)
    if len(left) > arguments.most:
        print(f"{len(left) - arguments.most} runs are left: run the same command again")
        return
    found = result(arguments.work, arguments.methods, arguments.seeds, sizes)
    found["machine"] = {
        "cores": len(Machine.here().cpus),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.policy_gradients " + " ".join(sys.argv[1:]),
    }
    print(table(found))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
