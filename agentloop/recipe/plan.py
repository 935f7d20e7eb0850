"""The plan of a recipe: every stage at every iteration in the order in which it runs, with what it reads and makes.

A plan is what is known before the run: conditions (`when`, `until`) are decided by measurements, so a conditional stage is in the plan and
marked, and a repetition has its most rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from agentloop.recipe.check import named_roles
from agentloop.recipe.control import Python, Repeat, Tune
from agentloop.recipe.flow import Artifact, artifacts_of, data_reads
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.reference import Reference
from agentloop.recipe.settings import ArtifactType
from agentloop.recipe.source import Path
from agentloop.recipe.stage import Stage, method
from agentloop.recipe.train import Train
from agentloop.recipe.walk import loops_around

FINAL = "final"
"""Label of what runs once after the last iteration."""


@dataclass(frozen=True, slots=True)
class Input:
    """What a stage reads.

    Attributes:
        reference: As the recipe writes it.
        type: Type of the artifact; None for a file.
        keys: Keys of the stages that made it, the oldest first; empty for a file, for a store, and where nothing was made yet.
    """

    reference: Reference
    type: ArtifactType | None
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """One stage at one place of the run.

    Attributes:
        key: "LABEL/ID", unique in the plan and the name in the journal.
        label: "000", "001", ... or "final", followed by ".ROUND" for each repetition around the stage.
        iteration: From 0; that of the last iteration for final stages, so that schedules have their last value.
        rounds: Round of each `repeat` around the stage, from 0, the outermost first.
        stage: Its settings.
        inputs: What it reads.
        outputs: What it makes, name to type.
        adapters: For each role that acts in it, the key of the training that made its adapter; "start" is what the iteration started with.
        conditional: Whether a measurement may leave it out.
        empty: Whether nothing that it reads was made yet, so that it is left out (`x@previous` in the first iteration).
    """

    key: str
    label: str
    iteration: int
    rounds: tuple[int, ...]
    stage: Stage
    inputs: tuple[Input, ...]
    outputs: dict[str, ArtifactType]
    adapters: dict[str, str]
    conditional: bool = False
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of a whole run, in order."""

    stages: tuple[Planned, ...]

    def __iter__(self) -> Iterator[Planned]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __str__(self) -> str:
        """A line a stage under a heading an iteration; iterations that differ in nothing but their number share one heading."""
        shown: list[tuple[list[str], list[str]]] = []
        for name, group in groupby(self.stages, key=lambda planned: planned.label.partition(".")[0]):
            lines = [_line(planned) for planned in group]
            if shown and shown[-1][1] == lines:
                shown[-1][0].append(name)
            else:
                shown.append(([name], lines))
        headings = [_heading(names) for names, _ in shown]
        return "\n".join(line for heading, (_, lines) in zip(headings, shown, strict=True) for line in [heading, *lines])


def _heading(names: list[str]) -> str:
    if names == [FINAL]:
        return "after the last iteration"
    return f"iteration {names[0]}" if len(names) == 1 else f"iterations {names[0]} to {names[-1]}"


def _line(planned: Planned) -> str:
    """For example "  train     train     sft, rows -> adapter"."""
    stage = planned.stage
    rounds = "".join(f".{turn:02d}" for turn in planned.rounds)
    word = method(stage)
    reads = ", ".join(str(entry.reference) for entry in planned.inputs)
    makes = ", ".join(kind if name == stage.id else f"{name}: {kind}" for name, kind in planned.outputs.items())
    notes = [note for note, is_so in (("on a condition", planned.conditional), ("left out: nothing to read yet", planned.empty)) if is_so]
    about = ", ".join(part for part in (word, f"from {reads}" if reads else "") if part)
    line = f"  {stage.id + rounds:<16} {stage.kind:<9} {about}"
    return line.rstrip() + (f" -> {makes}" if makes else "") + (f" ({'; '.join(notes)})" if notes else "")


def plan(recipe: Recipe) -> Plan:
    """The plan of a checked recipe."""
    return Plan(tuple(_Planner(recipe).run()))


class _Planner:
    """Walks through the run and remembers what was made where."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.artifacts = artifacts_of(recipe)
        self.made: dict[str, list[tuple[tuple[int, ...], str]]] = {}
        self.trained: dict[str, str] = {}

    def run(self) -> Iterator[Planned]:
        for iteration in range(self.recipe.iterations):
            self.trained = {}
            yield from self._list(self.recipe.stages, ("stages",), f"{iteration:03d}", iteration, (), False)
        self.trained = {}
        yield from self._list(self.recipe.final, ("final",), FINAL, self.recipe.iterations - 1, (), False)

    def _list(
        self, stages: Sequence[Stage], path: Path, label: str, iteration: int, rounds: tuple[int, ...], conditional: bool
    ) -> Iterator[Planned]:
        for index, stage in enumerate(stages):
            here: Path = (*path, index, stage.kind)
            doubtful = conditional or stage.when is not None
            if isinstance(stage, Repeat):
                for turn in range(stage.most_rounds):
                    inner = doubtful or (stage.until is not None and turn > 0)
                    yield from self._list(stage.stages, (*here, "stages"), f"{label}.{turn:02d}", iteration, (*rounds, turn), inner)
                continue
            if isinstance(stage, Tune):
                yield from self._list(stage.stages, (*here, "stages"), label, iteration, rounds, doubtful)
            yield self._planned(stage, here, label, iteration, rounds, doubtful)

    def _planned(self, stage: Stage, path: Path, label: str, iteration: int, rounds: tuple[int, ...], conditional: bool) -> Planned:
        key = f"{label}/{stage.id}"
        clock = (iteration + (path[0] == FINAL), *rounds)
        inputs = tuple(self._input(read.reference, path, clock) for read in data_reads(stage, path))
        named = [entry for entry in inputs if not entry.reference.file and entry.reference.name not in self.recipe.stores]
        empty = bool(named) and len(named) == len(inputs) and not any(entry.keys for entry in named)
        outputs: dict[str, ArtifactType] = dict(stage.outputs) if isinstance(stage, Python) else {}
        if stage.makes is not None:
            outputs[stage.id] = self.artifacts[stage.id].type
        adapters = {role: self.trained.get(role, "start") for role in self._players(stage)}
        if not empty:
            for name in outputs:
                self.made.setdefault(name, []).append((clock, key))
            if isinstance(stage, Train):
                self.trained[stage.role] = key
        return Planned(key, label, iteration, rounds, stage, inputs, outputs, adapters, conditional, empty)

    def _players(self, stage: Stage) -> list[str]:
        """Roles whose adapters a stage uses."""
        if stage.kind not in ("sample", "judge", "evaluate", "train"):
            return []
        seats = getattr(stage, "seats", None) or {}
        names = [seat.role for seat in seats.values()] or [str(getattr(stage, "role", "actor"))]
        names += [name for where, name in named_roles((), stage) if where in (("critic",), ("rollout",))]
        return [name for name in dict.fromkeys(names) if self.recipe.role(name).kind == "adapter"]

    def _input(self, reference: Reference, path: Path, clock: tuple[int, ...]) -> Input:
        if reference.file:
            return Input(reference, None, ())
        if reference.name in self.recipe.stores:
            return Input(reference, "store", ())
        artifact = self.artifacts[reference.name]
        made = self.made.get(reference.name, [])
        shared = 1 + self._shared(artifact, path)
        now = clock[:shared]
        if reference.occasion == "all":
            keys = [key for _, key in made]
        elif reference.occasion == "previous":
            earlier = [(at, key) for at, key in made if at[:shared] == (*now[:-1], now[-1] - 1)]
            keys = [key for _, key in earlier[-1:]]
        elif path[0] == FINAL and artifact.path[0] != FINAL:
            keys = [key for _, key in made[-1:]]
        else:
            keys = [key for _, key in [entry for entry in made if entry[0][:shared] == now][-1:]]
        return Input(reference, artifact.type, tuple(keys))

    def _shared(self, artifact: Artifact, path: Path) -> int:
        """How many repetitions hold both the maker and the reader."""
        mine, theirs = self._repeats(path), self._repeats(artifact.path)
        return sum(1 for one, other in zip(mine, theirs, strict=False) if one == other)

    def _repeats(self, path: Path) -> list[Path]:
        return [loop for loop in loops_around(path) if loop[-1] == "repeat"]
