"""`train` with `online`: the training goes on in its own process while this one, which has the engine, plays the rounds that it trains on.

The two meet in a folder (`agentloop.training.exchange`). Round n is played by the policy after n - `staleness` rounds, no other, so that
what is played depends on the recipe and not on who was quicker: with 0 each waits for the other, with 1 the next round is played while one
is trained on. A round's episodes are kept as they end, and a round that was handed over is never played again, so that a run that was
killed goes on with the episode, the round and the update in which it was.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentloop.dataset import registry
from agentloop.dataset.build_report import BuildReport
from agentloop.dataset.store import write_rows
from agentloop.engine.adapter import adapter_version
from agentloop.engine.base import AdapterVersion
from agentloop.environment.base import Task
from agentloop.errors import WaitedTooLong
from agentloop.evaluation.benchmark import Evaluation
from agentloop.loop.context import Context, StageRun
from agentloop.loop.stages.play import play
from agentloop.loop.stages.policy import policy_options
from agentloop.loop.updates import updates_before
from agentloop.recipe.moment import at_update
from agentloop.recipe.online import Online
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.train import PolicyTrain
from agentloop.sampling.choice import fresh_tasks
from agentloop.sampling.seed import derive
from agentloop.trace.hash import content_hash
from agentloop.trace.store import read_trees
from agentloop.training.exchange import Exchange, Round

POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Rounds:
    """What the rounds of one training are played from.

    Attributes:
        run: The stage.
        context: The run that it belongs to.
        stage: Its settings, schedules `by: update` as they were written.
        exchange: Where the training takes rounds from and puts adapters.
        start: The adapter that the training goes on from; None is the base.
        before: On-policy updates that the role had behind it when the training began.
    """

    run: StageRun
    context: Context
    stage: PolicyTrain
    exchange: Exchange
    start: AdapterVersion | None
    before: int

    @staticmethod
    def of(run: StageRun, context: Context) -> Rounds:
        """The rounds of a stage, with what an earlier process played and trained of them, if that was the same training."""
        stage = run.stage
        assert isinstance(stage, PolicyTrain)
        exchange = Exchange(context.directory.path / "iterations" / run.label / "online" / stage.id)
        rounds = Rounds(
            run,
            context,
            stage,
            exchange,
            context.lineage.start_of(stage.role, stage.start),
            updates_before(run, context.recipe, context.directory),
        )
        rounds._begin()
        return rounds

    @property
    def online(self) -> Online:
        """What the recipe says of them."""
        assert self.stage.online is not None
        return self.stage.online

    @property
    def identity(self) -> str:
        """Hash of what the rounds depend on."""
        recipe = self.context.recipe
        start = None if self.start is None else self.start.name
        stage = self.stage.model_dump(mode="json", by_alias=True)
        return content_hash({"stage": stage, "seed": recipe.seed, "start": start, "before": self.before, "prompt": self.context.prompt()})

    def _begin(self) -> None:
        """Remove the rounds of another training, which a run that was killed in it may have left."""
        mark = self.exchange.folder / "identity"
        if not mark.is_file() or mark.read_text() != self.identity:
            shutil.rmtree(self.exchange.folder, ignore_errors=True)
            self.exchange.folder.mkdir(parents=True)
            mark.write_text(self.identity)

    @property
    def temperature(self) -> float:
        """That of all rounds: log-probabilities are of one distribution."""
        return at_update(self.online.sample, self.before).temperature.at(self.run.schedule_at)

    def options(self, number: int) -> dict[str, Any]:
        """The options of a round's loss."""
        return policy_options(at_update(self.stage, self.before + number), self.run, self.context, [])

    def rates(self) -> list[float]:
        """The learning rate of each round."""
        count = self.online.rounds
        return [
            at_update(self.stage, self.before + number).learning_rate.at(self.run.schedule_at)
            * decayed(number, count, self.stage.warmup, self.stage.decay)
            for number in range(count)
        ]

    async def play_all(self) -> list[Round]:
        """Play every round that was not handed over yet, each with the policy that it is for, and hand them over."""
        found = []
        for number in range(self.online.rounds):
            found.append(self.exchange.round(number) or await self._play(number))
        return found

    async def _play(self, number: int) -> Round:
        began = time.monotonic()
        version = await self._policy(max(0, number - self.online.staleness))
        waited = time.monotonic()
        serving = self.context.serving
        await serving.retire(set() if version is None else {version.name})
        adapter, check = await serving.serve(version)
        served = time.monotonic()
        waves, paths = await self._waves(number, adapter)
        report = BuildReport()
        rows_path = self.exchange.place(number) / "rows.parquet"
        count = write_rows(rows_path, self._rows(number, paths, report))
        facts = {
            "adapter": adapter,
            "check": check,
            "episodes": sum(wave.sampling.episodes for wave in waves if wave.sampling is not None),
            "success": _success(waves),
            "rows": count,
            "left_out": dict(report.left_out),
            "tokens": dict(sum((Counter(asdict(wave.tokens)) for wave in waves), Counter[str]())),
            "failures": dict(sum((Counter(wave.failures) for wave in waves), Counter[str]())),
            "seconds": {
                "waited": round(waited - began, 3),
                "swapped": round(served - waited, 3),
                "played": round(time.monotonic() - served, 3),
            },
        }
        found = Round(number, str(rows_path) if count else None, self.options(number), facts)
        self.exchange.offer(found)
        return found

    async def _policy(self, number: int) -> AdapterVersion | None:
        """The policy after so many rounds, when the training has written it; None is the base."""
        if number == 0:
            return self.start
        path, began = self.exchange.adapter(number), time.monotonic()
        while not path.is_dir():
            if time.monotonic() - began > self.online.wait:
                raise WaitedTooLong(f"the adapter of round {number} of an online training", self.online.wait, f"it would appear as {path}")
            await asyncio.sleep(POLL_SECONDS)
        return adapter_version(path, self.stage.role, self.run.iteration)

    async def _waves(self, number: int, adapter: str) -> tuple[list[Evaluation], list[Path]]:
        """Play a round's tasks, then other tasks in place of those whose group made no row, as often as `refill` says."""
        sample = at_update(self.online.sample, self.before + number)
        wanted = sample.tasks.at(self.run.schedule_at) if sample.tasks is not None else None
        waves: list[Evaluation] = []
        paths: list[Path] = []
        played = 0
        missing = wanted
        for wave in range(self.online.refill + 1):
            first, last = played, None if missing is None else played + missing

            def choose(tasks: Sequence[Task], count: int | None, first: int = first, last: int | None = last) -> list[Task]:
                return self._in_order(tasks, count, number)[first:last]

            path = self.exchange.place(number) / f"trees-{wave}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            fixed = {"id": self.stage.id, "role": self.stage.role, "temperature": Scheduled.constant(self.temperature)}
            stage = sample.model_copy(update=fixed)
            run = StageRun(stage, self.run.iteration, f"{self.run.label}.{number:05d}")
            environment = self.context.environment(None)
            waves.append(await play(run, self.context, stage, path, adapter=adapter, environment=environment, split="train", choose=choose))
            paths.append(path)
            if wanted is None or wave == self.online.refill:
                break
            played += missing or 0
            groups = {row.provenance.tree for row in self._rows(number, paths, BuildReport())}
            missing = wanted - len(groups)
            if missing <= 0:
                break
        return waves, paths

    def _in_order(self, tasks: Sequence[Task], count: int | None, number: int) -> list[Task]:
        """A round's tasks, other ones every round, and behind them all others, in an order of the round's own, to refill from."""
        seed, place = self.context.recipe.seed, self.run.iteration * self.online.rounds + number
        own = fresh_tasks(tasks, count, seed=seed, iteration=place)
        if not self.online.refill:
            return own
        names = {task.id for task in own}
        others = [task for task in tasks if task.id not in names]
        return own + sorted(others, key=lambda task: derive(seed, "refill", place, task.id))

    def _rows(self, number: int, paths: Sequence[Path], report: BuildReport) -> Any:
        """What the round's trees are as rows."""
        builder = registry.find("advantage")
        build = at_update(self.online.build, self.before + number)
        options = build.settings(self.run.schedule_at)
        known = {name: options[name] for name in options if name in builder.settings.__dataclass_fields__}
        settings = builder.configure(known | {"role": self.stage.role})
        trees = (tree for path in paths for tree in read_trees(path))
        return builder.build(trees, settings, stage=self.stage.id, iteration=self.run.iteration, report=report)

    def empty(self) -> list[Round] | None:
        """All rounds, if every one was played and none made a row; None otherwise."""
        found = [self.exchange.round(number) for number in range(self.online.rounds)]
        return [one for one in found if one is not None] if all(one is not None and one.rows is None for one in found) else None

    def clear(self) -> None:
        """Remove the adapters of a training that is over; trees and rows stay, for whoever asks what it was trained on."""
        for path in self.exchange.folder.glob("*/adapter"):
            shutil.rmtree(path)


def _success(waves: Sequence[Evaluation]) -> float | None:
    """Share of a round's episodes that succeeded; None where all broke."""
    counted = [(found.value, found.n) for wave in waves for found in wave.measurements if found.name == "success"]
    total = sum(n for _, n in counted)
    return sum(value * n for value, n in counted) / total if total else None


def decayed(number: int, count: int, warmup: float, decay: str) -> float:
    """Share of the highest learning rate in a round: it rises over the first rounds and then falls, as that of other trainings does over
    updates, but ends above 0, where the last round would train nothing.
    """
    rising = round(warmup * count)
    if number < rising:
        return (number + 1) / (rising + 1)
    gone = (number - rising) / max(1, count - rising)
    return {"constant": 1.0, "linear": 1.0 - gone, "cosine": (1.0 + math.cos(math.pi * gone)) / 2.0}[decay]


async def together(training: asyncio.Future[Any], playing: asyncio.Future[Any]) -> tuple[Any, Any]:
    """What both give; the first that fails ends the other, and its error is raised."""
    both = (training, playing)
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
        for one in both:
            if one.done() and (error := one.exception()) is not None:
                raise error
        return training.result(), playing.result()
    finally:
        for one in both:
            if not one.done():
                one.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*both, return_exceptions=True)
