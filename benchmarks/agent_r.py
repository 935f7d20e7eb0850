"""Agent-R against direct revision and imitation of good paths alone, at equal rows and updates: from the start, and from bad prefixes.

    python -m benchmarks.agent_r --work runs/agent_r --out benchmarks/results/agent_r.json

Runs `recipes/agent_r.yaml`, `agent_r_direct.yaml` and `mcts_distill.yaml` as they are but for the sizes and the world: the tiny policy in
the terse calculator, where a thought is one word and a verifier behind a URL (`benchmarks.terse_verifier`) judges in the policy's place.
After the last iteration each is measured

start           on the test split, from the first observation;
first error     on the dev split, from right behind the first error of failed episodes that the untrained policy played;
end             on the same episodes, from their last turn that did not end them.

The episodes to go on from are those of one seed for every method. A run goes on where it stopped, so the same command, called again, does
what is missing; `--most` bounds how many runs one call makes. What is written pools the seeds: intervals are at 95 % and clustered by task,
differences paired by task.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentloop.cli.main import run as agentloop
from agentloop.engine.launch import Machine
from agentloop.evaluation.measure import Tally, compare, tally
from agentloop.run.journal import Entry, Journal
from agentloop.trace.store import read_trees
from agentloop.trace.tree import Tree
from benchmarks.terse_verifier import serving

RECIPES = Path(__file__).parents[1] / "recipes"
METHODS = {"agent-r": "agent_r", "direct": "agent_r_direct", "optimal": "mcts_distill"}
MEASURED = {"start": "test", "first error": "from_error", "end": "from_end"}
"""What is measured, and the stage that does."""
THOUGHT = "?"
PORT = 18431
"""Of the verifier; the address is part of the recipes, so that it must be the same when a run goes on."""
PLAY = "max_tokens: 24, concurrency: 64"


@dataclass(frozen=True)
class Sizes:
    """How large a run is.

    Attributes:
        tasks: Trees an iteration.
        simulations: Walks of a search.
        width: Candidates of an expansion.
        rows: Rows an iteration, the same number for every method.
        updates: Optimiser updates an iteration.
        test: Tasks of the test split.
        bad: Tasks of the dev split that the untrained policy plays, twice each, for its failures.
    """

    tasks: int = 150
    simulations: int = 4
    width: int = 3
    rows: int = 96
    updates: int = 100
    test: int = 150
    bad: int = 80


def overrides(method: str, seed: int, verifier: str, sizes: Sizes) -> list[str]:
    """What is changed of a recipe, as `--set` has it."""
    final = [
        f"evaluate: {{id: test, split: test, tasks: {sizes.test}, temperature: 0, max_turns: 10, {PLAY}}}",
        f"sample: {{id: bad, split: dev, role: untrained, tasks: {sizes.bad}, samples: 2, temperature: 1, max_turns: 10, {PLAY}}}",
        "judge: {id: judged, from: bad, critic: first_error, role: verifier}",
        f"evaluate: {{id: from_error, split: dev, start_from: {{from: judged, at: error}}, temperature: 0, max_turns: 10, {PLAY}}}",
        f"evaluate: {{id: from_end, split: dev, start_from: {{from: bad, at: failure}}, temperature: 0, max_turns: 10, {PLAY}}}",
    ]
    changes = {
        "model": "tiny",
        "seed": seed,
        "engine": "{kind: transformers}",
        "environment": "{id: calculator, terse: true, levels: [2]}",
        "prompt": "{examples: 0}",
        "roles": f"{{untrained: {{adapter: false}}, verifier: {{url: '{verifier}'}}}}",
        "stages.trees.tasks": sizes.tasks,
        "stages.trees.simulations": sizes.simulations,
        "stages.trees.width": sizes.width,
        "stages.trees.temperature": 1,
        "stages.trees.max_tokens": 24,
        "stages.rows.size": sizes.rows,
        "stages.train.updates": sizes.updates,
        "stages.train.batch_size": 16,
        "stages.train.learning_rate": 2.0e-3,
        "stages.dev.tasks": 50,
        "stages.dev.max_tokens": 24,
        "final": "[" + ", ".join(f"{{{stage}}}" for stage in final) + "]",
    }
    if method == "agent-r":
        changes |= {"stages.errors.role": "verifier"}
    if method == "optimal":
        changes |= {"stages.gate.keep": "last"}
    else:
        changes |= {"stages.rows.thoughts": f"['{THOUGHT}']", "stages.rows.answer": "error"}
    return [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]


def run(method: str, seed: int, out: Path, verifier: str, sizes: Sizes) -> None:
    """Run a recipe in `out`, or go on with it. Raises `SystemExit` if it fails."""
    recipe = RECIPES / f"{METHODS[method]}.yaml"
    code = agentloop(["run", str(recipe), "--out", str(out), "--quiet", *overrides(method, seed, verifier, sizes)])
    if code != 0:
        raise SystemExit(f"{method}, seed {seed}: exit code {code}")


def finished(out: Path) -> bool:
    """Whether the last measurement of a run is there."""
    return Journal(out / "journal.jsonl").finished("final/from_end") is not None


def trees(out: Path, stage: str) -> Iterator[Tree]:
    """What a final stage played."""
    return read_trees(out / f"iterations/final/trees/{stage}.parquet")


def entries(out: Path, stage: str) -> list[Entry]:
    """A stage's lines of all three iterations."""
    journal = Journal(out / "journal.jsonl")
    return [entry for iteration in range(3) if (entry := journal.finished(f"{iteration:03d}/{stage}")) is not None]


def share(grown: Iterable[Tree]) -> float:
    """Share of the episodes whose first own turn is a revision thought."""
    firsts = [next(turn for turn in tree.path(leaf.id) if not turn.given) for tree in grown for leaf in tree.leaves()]
    return sum(turn.text == THOUGHT for turn in firsts) / max(1, len(firsts))


def of_run(method: str, seed: int, out: Path) -> dict[str, Any]:
    """The numbers of one run."""
    success = {name: tally(trees(out, stage)).estimate("success") for name, stage in MEASURED.items()}
    training = [entry.about["training"] for entry in entries(out, "train")]
    return {
        "method": method,
        "seed": seed,
        "success": {name: None if found is None else found.value for name, found in success.items()},
        "thoughts first": {name: share(trees(out, stage)) for name, stage in MEASURED.items()},
        "dev": [next(line["value"] for line in entry.measurements if line["name"] == "success") for entry in entries(out, "dev")],
        "rows": [trained["rows"] for trained in training],
        "updates": [trained["steps"] for trained in training],
        "trained_tokens": [trained["trained_tokens"] for trained in training],
        "seconds": round(sum(entry.seconds for entry in Journal(out / "journal.jsonl").finished_entries()), 1),
    }


def result(work: Path, seeds: list[int], sizes: Sizes) -> dict[str, Any]:
    """Everything that was measured."""
    tallies = {method: {name: pooled(work, method, seeds, stage) for name, stage in MEASURED.items()} for method in METHODS}
    runs = [of_run(method, seed, work / f"{method}-{seed}") for method in METHODS for seed in seeds]
    return {
        "what": (__doc__ or "").split("\n")[0],
        "sizes": asdict(sizes),
        "seeds": seeds,
        "untrained": {"fails": [1 - statistics.fmean(map(float, _wins(work / f"agent-r-{seed}"))) for seed in seeds]},
        "success": {
            method: {name: asdict(estimate) for name, found in by_name.items() if (estimate := found.estimate("success")) is not None}
            for method, by_name in tallies.items()
        },
        "differences": {
            f"{one} - {other}": {name: asdict(compare(tallies[one][name], tallies[other][name])["success"]) for name in MEASURED}
            for one, other in (("agent-r", "direct"), ("agent-r", "optimal"), ("direct", "optimal"))
        },
        "runs": runs,
    }


def pooled(work: Path, method: str, seeds: list[int], stage: str) -> Tally:
    """The episodes of all seeds, by task."""
    return tally(tree for seed in seeds for tree in trees(work / f"{method}-{seed}", stage))


def _wins(out: Path) -> list[bool]:
    return [bool(leaf.success) for tree in trees(out, "bad") for leaf in tree.leaves()]


def table(found: dict[str, Any]) -> str:
    """The table of docs/methods/agent-r.md."""
    lines = ["| | " + " | ".join(MEASURED) + " |", "|---" * (len(MEASURED) + 1) + "|"]
    for method, by_name in found["success"].items():
        cells = []
        for name, estimate in by_name.items():
            each = ", ".join(f"{100 * one['success'][name]:.0f}" for one in found["runs"] if one["method"] == method)
            cells.append(f"{100 * estimate['value']:.1f} % ({100 * estimate['low']:.1f} – {100 * estimate['high']:.1f}) [{each}]")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--most", type=int, default=9, help="most runs that this call makes")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sizes = Sizes()
    left = [(method, seed) for seed in arguments.seeds for method in METHODS if not finished(arguments.work / f"{method}-{seed}")]
    with serving(PORT) as verifier:
        for method, seed in left[: arguments.most]:
            begun = time.monotonic()
            out = arguments.work / f"{method}-{seed}"
            run(method, seed, out, verifier, sizes)
            print(json.dumps(of_run(method, seed, out) | {"wall": round(time.monotonic() - begun, 1)}), flush=True)
    if len(left) > arguments.most:
        print(f"{len(left) - arguments.most} runs are left: run the same command again")
        return
    found = result(arguments.work, arguments.seeds, sizes)
    found["machine"] = {
        "cores": len(Machine.here().cpus),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m benchmarks.agent_r " + " ".join(sys.argv[1:]),
    }
    print(table(found))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
