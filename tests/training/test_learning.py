"""The learning test: the tiny policy plays, its wins become rows, and an adapter trained on them plays clearly better on fresh tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from agentloop.dataset.self_imitation import Settings, build
from agentloop.dataset.store import write_rows
from agentloop.engine.adapter import adapter_version
from agentloop.engine.base import BASE, Engine
from agentloop.engine.open import open_engine
from agentloop.engine.settings import EngineSettings
from agentloop.environment.base import Environment, Split, Task
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.evaluation.measure import Measurement, measure
from agentloop.model import resolve
from agentloop.sampling.group import Origin, sample_groups
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.render import Renderer
from agentloop.trace.tree import Tree
from agentloop.training.job import TrainingJob
from agentloop.training.launch import train

OPTIONS = {"terse": True}


class Fragments:
    """A sink in memory."""

    def __init__(self) -> None:
        self.finished: set[tuple[str, int]] = set()
        self.fragments: list[Tree] = []

    def add(self, fragment: Tree) -> None:
        self.fragments.append(fragment)

    def trees(self) -> list[Tree]:
        ids = sorted({fragment.id for fragment in self.fragments})
        return [Tree.merge([fragment for fragment in self.fragments if fragment.id == name]) for name in ids]


async def played(engine: Engine, renderer: Renderer, split: Split, tasks: Sequence[Task], adapter: str, samples: int) -> list[Tree]:
    sink = Fragments()
    settings = SampleSettings(samples=samples, temperature=1.0, max_tokens=24, max_turns=6, concurrency=64, episodes=64)
    async with EnvironmentPool(find("calculator"), OPTIONS, 64) as pool:
        origin = Origin("trees", "calculator", split, seed=1)
        await sample_groups(
            tasks, engine=engine, pool=pool, renderer=renderer, sink=sink, settings=settings, origin=origin, adapter=adapter
        )
    return sink.trees()


def success(trees: Sequence[Tree]) -> Measurement:
    return next(measurement for measurement in measure(trees) if measurement.name == "success")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_one_round_of_self_imitation_clearly_raises_success_on_fresh_tasks(tmp_path: Path):
    from transformers import AutoTokenizer

    model = resolve("tiny")
    calculator: Environment = find("calculator").make(**OPTIONS)
    train_tasks, test_tasks = calculator.tasks("train")[:100], calculator.tasks("test")[:120]
    renderer = Renderer(AutoTokenizer.from_pretrained(model.path))
    async with open_engine(EngineSettings(kind="transformers"), model.path, adapters=1, work_dir=tmp_path) as engine:
        before = success(await played(engine, renderer, "test", test_tasks, BASE, 1))
        assert 0.2 <= before.value <= 0.5, "the tiny policy plays at 20 to 50 %"

        trees = await played(engine, renderer, "train", train_tasks, BASE, 4)
        rows = list(build(trees, Settings(), stage="rows"))
        wins = sum(leaf.success is True for tree in trees for leaf in tree.leaves())
        assert 0 < len(rows) <= wins and all(row.reward == 1.0 for row in rows)
        write_rows(tmp_path / "rows.parquet", rows)
        job = TrainingJob(
            model=str(model.path),
            model_name="tiny",
            rows=(str(tmp_path / "rows.parquet"),),
            output=str(tmp_path / "adapter"),
            epochs=8,
            learning_rate=2e-3,
            batch_size=16,
            device="cpu",
            threads=1,  # more than one only get in each other's way with so small a model
            timeout=600.0,
        )
        trained = train(job)
        assert trained.loss_last < trained.loss_first

        version = adapter_version(tmp_path / "adapter", "actor", 0)
        await engine.load_adapter(version)
        after = success(await played(engine, renderer, "test", test_tasks, version.name, 1))
    assert before.high is not None and after.low is not None
    assert after.low > before.high, (
        f"{before.value:.2f} [{before.low:.2f}, {before.high:.2f}] to {after.value:.2f} [{after.low:.2f}, {after.high:.2f}]"
    )
