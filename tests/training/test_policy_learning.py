"""The learning test of policy gradients: episodes of the tiny policy, compared within their groups, make it play better on fresh tasks.

What a trainer of policy gradients gets wrong without a sign is checked on the way: that it scores rows as the engine did, at the
temperature that was sampled at, and that each iteration goes on from the adapter that was just served.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agentloop.dataset.advantage import Settings, build
from agentloop.dataset.store import write_rows
from agentloop.engine.adapter import adapter_version
from agentloop.engine.base import BASE
from agentloop.engine.open import open_engine
from agentloop.engine.settings import EngineSettings
from agentloop.environment.registry import find
from agentloop.evaluation.measure import compare, tally
from agentloop.model import resolve
from agentloop.trace.render import Renderer
from agentloop.training.job import TrainingJob
from agentloop.training.launch import train
from tests.training.test_learning import OPTIONS, played

ITERATIONS = 2
TASKS, SAMPLES = 48, 8


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("warm_training")
async def test_policy_gradients_raise_success_on_fresh_tasks(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = resolve("tiny")
    calculator = find("calculator").make(**OPTIONS)
    train_tasks, test_tasks = calculator.tasks("train"), calculator.tasks("test")[:100]
    renderer = Renderer(AutoTokenizer.from_pretrained(model.path))
    adapter: Path | None = None
    serving = BASE
    async with open_engine(EngineSettings(kind="transformers"), model.path, adapters=ITERATIONS, work_dir=tmp_path) as engine:
        before = tally(await played(engine, renderer, "test", test_tasks, BASE, 2))
        for iteration in range(ITERATIONS):
            tasks = train_tasks[TASKS * iteration : TASKS * (iteration + 1)]
            rows = list(build(await played(engine, renderer, "train", tasks, serving, SAMPLES), Settings()))
            assert {row.adapter for row in rows} == {serving}
            write_rows(path := tmp_path / f"rows-{iteration}.parquet", rows)
            job = TrainingJob(
                model=str(model.path),
                model_name="tiny",
                rows=(str(path),),
                output=str(tmp_path / f"adapter-{iteration}"),
                start=None if adapter is None else str(adapter),
                method="grpo",
                epochs=2,
                learning_rate=1e-3,
                scheduler="constant",
                batch_size=64,
                seed=iteration,
                device="cpu",
                threads=1,
                timeout=600.0,
                options={"clip_high": 0.28},
            )
            trained = train(job)
            assert trained.facts["log_ratio"]["first"] < 1e-3, "trainer and engine agree on what was sampled"
            adapter = Path(job.output)
            version = adapter_version(adapter, "actor", iteration)
            await engine.load_adapter(version)
            serving = version.name
        after = tally(await played(engine, renderer, "test", test_tasks, serving, 2))
    gain = compare(after, before)["success"]
    assert gain.low is not None and gain.low > 0, f"{before.estimate('success')} to {after.estimate('success')}"
