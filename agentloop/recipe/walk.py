"""Walking over a recipe: every stage with its path into the data, every number with its."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from agentloop.recipe.part import Part
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.source import Path
from agentloop.recipe.stage import Stage


def stages_of(recipe: Recipe) -> Iterator[tuple[Path, Stage]]:
    """(path, stage) of every stage, in order, an outer stage before those inside."""
    for key, stages in (("stages", recipe.stages), ("final", recipe.final)):
        yield from _nested(stages, (key,))


def _nested(stages: tuple[Stage, ...], path: Path) -> Iterator[tuple[Path, Stage]]:
    for index, stage in enumerate(stages):
        here: Path = (*path, index, stage.kind)
        yield here, stage
        yield from _nested(getattr(stage, "stages", ()), (*here, "stages"))


def within(path: Path, stage: Path) -> bool:
    """Whether a path leads to a stage that stands inside another."""
    return len(path) > len(stage) and path[: len(stage)] == stage and path[len(stage)] == "stages"


def loops_around(path: Path) -> tuple[Path, ...]:
    """Paths of the stages that hold the stage at a path, the outermost first."""
    return tuple(path[:length] for length in range(3, len(path), 3) if within(path, path[:length]))


def numbers_of(part: Part, path: Path) -> Iterator[tuple[Path, Scheduled[Any]]]:
    """(path, number) of every number that may be a schedule in a part, those of stages inside it left out."""
    for name, field in type(part).model_fields.items():
        if name != "stages":
            yield from _numbers(getattr(part, name), (*path, field.alias or name))


def _numbers(value: object, path: Path) -> Iterator[tuple[Path, Scheduled[Any]]]:
    if isinstance(value, Scheduled):
        yield path, value
    elif isinstance(value, Part):
        yield from numbers_of(value, path)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _numbers(entry, (*path, key))


def grids(stages: Iterable[tuple[Path, Stage]], tune: Path) -> Iterator[tuple[Stage, Path]]:
    """(stage, path of the number) of every grid inside a `tune`."""
    for path, stage in stages:
        if within(path, tune):
            yield from ((stage, where) for where, number in numbers_of(stage, path) if number.shape == "grid")
