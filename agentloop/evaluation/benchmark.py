"""One model on one benchmark: play its frozen tasks under a frozen prompt, keep the trees, measure them.

A benchmark is an environment with a frozen split, prompt and metric. Base and adapter are compared by evaluating both with the same
`Origin`, settings and preface, so that tasks, prompts, decoding and seeds are the same and only the weights differ; `compare` in
`agentloop.evaluation.measure` then pairs their tasks. All numbers are made from the trees on the disk, so a killed and resumed evaluation
measures what an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentloop.engine.base import BASE, Engine
from agentloop.environment.base import Task
from agentloop.evaluation.measure import Measurement, Tally
from agentloop.sampling.beginning import tree_ids
from agentloop.sampling.episode import Pool
from agentloop.sampling.group import Origin, SamplingReport, sample_groups
from agentloop.sampling.progress import Display
from agentloop.sampling.prompt import NO_PREFACE, Preface
from agentloop.sampling.settings import SampleSettings
from agentloop.sampling.start import Start
from agentloop.trace.ledger import Ledger, Tokens
from agentloop.trace.render import Renderer
from agentloop.trace.store import TreeWriter, read_trees
from agentloop.trace.tree import Tree


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        measurements: Success, reward, turns, tokens and failures, each with its interval.
        tally: The sums by task behind them, for a paired comparison.
        tokens: What all episodes that were kept cost.
        failures: Broken episodes by kind.
        trees: The artifact with all episodes.
        sampling: What this attempt played; None when the trees existed.
    """

    measurements: tuple[Measurement, ...]
    tally: Tally
    tokens: Tokens
    failures: dict[str, int]
    trees: Path
    sampling: SamplingReport | None = None

    def __getitem__(self, name: str) -> Measurement:
        """The measurement of that name. Raises `KeyError`."""
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement
        raise KeyError(name)


async def evaluate(
    tasks: Sequence[Task],
    *,
    engine: Engine,
    pool: Pool,
    renderer: Renderer,
    settings: SampleSettings,
    origin: Origin,
    path: Path,
    adapter: str = BASE,
    preface: Preface = NO_PREFACE,
    display: Display | None = None,
    starts: Sequence[Start] | None = None,
) -> Evaluation:
    """Play `settings.samples` episodes of every task, keep them at `path` (a Parquet artifact of trees), and measure them.

    With `starts` the episodes start from these nodes of earlier trees and `tasks` is not asked: what is measured is what the model makes
    of a given past. Called again with the same `path` after a kill, it goes on with the episodes that are missing.

    Raises:
        RunFailed: Too many episodes failed; those that finished are kept.
    """
    with TreeWriter(path) as writer:
        report = await sample_groups(
            tasks,
            engine=engine,
            pool=pool,
            renderer=renderer,
            sink=writer,
            settings=settings,
            origin=origin,
            adapter=adapter,
            preface=preface,
            display=display,
            starts=starts,
        )
        order = [origin.tree_id(task.id) for task in tasks] if starts is None else list(tree_ids(starts, origin).values())
        writer.finish(order)
    return evaluate_trees(path, stage=origin.stage, iteration=origin.iteration, sampling=report)


def evaluate_trees(path: Path, *, stage: str = "", iteration: str = "", sampling: SamplingReport | None = None) -> Evaluation:
    """Measure trees that exist; they are read once, a few at a time."""
    sums = Tally()

    def counted() -> Iterator[Tree]:
        for tree in read_trees(path):
            sums.add(tree)
            yield tree

    tokens = Ledger.of_trees(counted(), stage).total()
    return Evaluation(
        measurements=tuple(sums.measurements(stage=stage, iteration=iteration)),
        tally=sums,
        tokens=tokens,
        failures=dict(sums.failures),
        trees=path,
        sampling=sampling,
    )
