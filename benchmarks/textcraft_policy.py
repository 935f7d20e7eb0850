"""The policy that `benchmarks.search_pays` measures: it has imitated the expert of textcraft on a few goals of the train split.

    python -m benchmarks.textcraft_policy --out FOLDER

The bare model crafts next to nothing, however many played goals its prompt shows, so that no way to search could be told from another.
The expert plays goals of the train split; what it says is written into the model's own contexts as authored rows, one a goal, and an
adapter is trained on each of them once. It is merged into the base model, which is served quicker so and is the same policy; the folder is
a model like any other. The goals that methods are compared on are of another split, so that none of them was seen.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import AutoTokenizer

from agentloop.dataset.row import Row
from agentloop.dataset.segment_row import segment_row
from agentloop.dataset.store import write_rows
from agentloop.engine.adapter import content_hash
from agentloop.environment.base import Environment, Task
from agentloop.environment.registry import find
from agentloop.model import resolve
from agentloop.sampling.choice import frozen_tasks
from agentloop.trace.author import Author
from agentloop.trace.render import Renderer
from agentloop.trace.tree import Tree
from agentloop.training.job import Trained, TrainingJob
from agentloop.training.launch import train

TOLD = "policy.json"
"""File in the policy's folder that says how it was made."""


@dataclass(frozen=True)
class Schooling:
    """How a policy is made.

    Attributes:
        model: The base model.
        goals: How many goals of depth 1, of depth 2 and so on the expert plays, drawn from the train split by a hash of their names.
        learning_rate: Of AdamW, falling linearly.
        batch_size: Rows an update.
        rank: Of the adapter.
        seed: Of the fresh adapter and the order of rows.
        threads: Of the training; None takes every core.
    """

    model: str = "smollm2-135m"
    goals: tuple[int, ...] = (20,)
    learning_rate: float = 1.0e-3
    batch_size: int = 4
    rank: int = 16
    seed: int = 0
    threads: int | None = None


def expert_rows(environment: Environment, tasks: Sequence[Task], renderer: Renderer) -> Iterator[Row]:
    """One row a task: what the expert says, trained on; what the environment answers, not."""
    author = Author(renderer)
    for task in tasks:
        first = observation = environment.reset(task)
        system_prompt = environment.system_prompt()
        draft = author.begin(system_prompt)
        reward = 0.0
        for action in environment.demonstration(task) or ():
            draft.say(observation, action)
            result = environment.step(action)
            observation, reward = result.observation, reward + result.reward
        tree = Tree(
            id=f"expert/{task.id}",
            task=task.id,
            environment="textcraft",
            split="train",
            turns=(),
            system_prompt=system_prompt,
            first_observation=first,
            seed=0,
        )
        for segment in draft.segments:
            yield segment_row(tree, segment, reward=reward, stage="expert", iteration=0)


def school(how: Schooling, out: Path) -> Trained:
    """Train the adapter and merge it into the folder `out`; adapter, rows and the training's log lie beside it."""
    model = resolve(how.model)
    renderer = Renderer(AutoTokenizer.from_pretrained(model.path))
    rows: list[Row] = []
    for depth, goals in enumerate(how.goals, start=1):
        environment = find("textcraft").make(depth=depth)
        rows += expert_rows(environment, frozen_tasks(environment.tasks("train"), goals), renderer)
    stored = out.with_name(f"{out.name}-rows.parquet")
    write_rows(stored, rows)
    adapter = out.with_name(f"{out.name}-adapter")
    job = TrainingJob(
        model=str(model.path),
        model_name=how.model,
        rows=(str(stored),),
        output=str(adapter),
        rank=how.rank,
        learning_rate=how.learning_rate,
        batch_size=how.batch_size,
        warmup=0.0,
        seed=how.seed,
        threads=how.threads,
    )
    trained = train(job)
    merge(model.path, adapter, out)
    about = {name: value for name, value in asdict(trained).items() if name != "adapter_path"}
    told = {"made by": "python -m benchmarks.textcraft_policy", "adapter": content_hash(adapter)}
    (out / TOLD).write_text(json.dumps(told | {"schooling": asdict(how), "trained": about}, indent=1) + "\n")
    return trained


def merge(base: Path, adapter: Path, out: Path) -> None:
    """A copy of the base model with the adapter's weights added to its own."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    shutil.copytree(base, out, ignore=shutil.ignore_patterns("*.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32", local_files_only=True)
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--goals", type=int, nargs="+", default=list(Schooling.goals), help="of depth 1, 2, ...")
    parser.add_argument("--learning-rate", type=float, default=Schooling.learning_rate)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    how = Schooling(goals=tuple(arguments.goals), learning_rate=arguments.learning_rate, threads=arguments.threads)
    print(school(how, arguments.out))


if __name__ == "__main__":
    main()
