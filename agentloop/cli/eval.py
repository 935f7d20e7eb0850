"""`agentloop eval BENCHMARK...`: scores a model or an adapter on environments' frozen splits, or goes on with scores cut short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agentloop.cli.benchmark import Job
    from agentloop.engine.base import AdapterVersion
    from agentloop.environment.registry import EnvironmentSpec
    from agentloop.evaluation.configuration import Configuration

RESULTS = "results.json"
CONFIGURATION = "configuration.json"


@click.command("eval")
@click.argument("benchmarks", metavar="BENCHMARK...", nargs=-1, required=True)
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
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the environment, BENCHMARK.NAME=VALUE of one of several; may be repeated.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--engine", type=click.Choice(["auto", "vllm", "transformers", "scripted"]), default="auto", show_default=True)
@click.option(
    "--engine-option", "engine_options", multiple=True, metavar="NAME=VALUE", help="url, dtype, max_model_len, ...; may be repeated."
)
@click.option("--concurrency", type=click.IntRange(min=1), default=32, show_default=True, help="Requests at the engine at once.")
@click.option("--max-failures", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Share of broken episodes that stops it.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the results, with one in it for each of several benchmarks; by default one under evaluations/ for these arguments.",
)
@click.option("--price", metavar="PROMPT,GENERATED", help="Money for a million tokens read and written; then the cost is told too.")
@click.option("--quiet", is_flag=True, help="No progress line and no table.")
def command(
    benchmarks: tuple[str, ...],
    out: Path | None,
    concurrency: int,
    max_failures: float,
    quiet: bool,
    price: str | None,
    options: tuple[str, ...],
    **arguments: Any,
) -> None:
    """Score a model on BENCHMARK, the id of an environment or the path of its file, or on several of them.

    Split, prompt and metric of each are frozen, so that scores compare. The same command goes on where it stopped. `agentloop compare`
    holds results against each other.
    """
    from agentloop.cli.benchmark import Job, evaluate_all
    from agentloop.cli.interrupt import run_until_interrupted
    from agentloop.environment.registry import find
    from agentloop.evaluation.expenses import Price
    from agentloop.run.directory import locked

    environments = {environment.id: environment for environment in map(find, benchmarks)}
    own_options = _options_by_benchmark(options, list(environments))
    cost = None if price is None else Price.parse(price)
    jobs: list[Job] = []
    for id, environment in environments.items():
        configuration, adapter = _configuration(environment, options=own_options[id], **arguments)
        folder = _folder(out, configuration, alone=len(environments) == 1)
        jobs.append(Job(configuration, environment, adapter, folder.resolve(), concurrency, max_failures, quiet, cost))
    with ExitStack() as locks:
        for job in jobs:
            locks.enter_context(locked(job.out))
        found = {job.out: kept for job in jobs if (kept := _kept_results(job)) is not None}
        if left := [job for job in jobs if job.out not in found]:
            found |= run_until_interrupted(evaluate_all(left), how_to_go_on="run the same command again to go on")
    if not quiet:
        _show([found[job.out] for job in jobs], [_shown_folder(job.out) for job in jobs])


def _folder(out: Path | None, configuration: Configuration, *, alone: bool) -> Path:
    """Where the results of one benchmark go."""
    if out is None:
        return configuration.folder()
    return out if alone else out / Path(configuration.benchmark).stem


def _options_by_benchmark(pairs: Sequence[str], ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The options of each benchmark: those that name it, and those that name none. Raises `Mistake`."""
    from agentloop.cli.option import parse_options

    names = {id: Path(id).stem for id in ids}
    found: dict[str, dict[str, Any]] = {id: {} for id in ids}
    for name, value in parse_options(pairs, "--option").items():
        owner, point, own = name.partition(".")
        owners = [id for id in ids if point and owner in (id, names[id])]
        for id in owners or ids:
            found[id][own if owners else name] = value
    return found


def _shown_folder(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _configuration(
    environment: EnvironmentSpec,
    *,
    adapter: Path | None,
    options: Mapping[str, Any],
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
        options=environment.check_options(options),
        adapter=None if version is None else version.content_hash,
        engine=settings.resolved_kind(),
        engine_options=parse_options(engine_options, "--engine-option"),
        **more,
    )
    return configuration, version


def _code_hash(environment: EnvironmentSpec) -> str:
    """Hash of the benchmark's code: of its file, or of all modules of a shipped one and of what it derives from; "" if installed."""
    import inspect

    from agentloop.environment.registry import shipped_folder
    from agentloop.trace.hash import file_hash, folder_hash

    if environment.path is None:
        return ""
    if environment.source == "file":
        return file_hash(environment.path)
    root = shipped_folder()
    sources = [Path(inspect.getfile(base)) for base in environment.load().__mro__ if base is not object]
    folders = {source.parent for source in sources if source.is_relative_to(root)}
    return folder_hash(root, names=sorted(path.relative_to(root).as_posix() for folder in folders for path in folder.rglob("*.py")))


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


def _show(all_found: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> None:
    """Print the measurements of each benchmark as a table, and what broke."""
    from rich.console import Console

    from agentloop.cli.score_table import score_table

    console = Console()
    for found, folder in zip(all_found, folders, strict=True):
        console.print(score_table(found))
        for subject, result in found["results"].items():
            if result["failures"]:
                broken = ", ".join(f"{kind} {count}" for kind, count in result["failures"].items())
                text = f"{subject}: broken episodes, counted in 'failures' and nowhere else: {broken}"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.print(f"{folder / RESULTS}", markup=False, highlight=False, soft_wrap=True)
