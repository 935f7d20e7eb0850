"""Walking over a recipe: every stage with its path into the data, every number with its."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentloop.recipe.part import Part
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.source import Path
from agentloop.recipe.stage import Stage


def stages_of(recipe: Recipe) -> Iterator[tuple[Path, Stage]]:
    """(path, stage) of every stage, in order, an outer stage before those inside."""
    for key, stages in (("stages", recipe.stages), ("final", recipe.final)):
        yield from nested(stages, (key,))


def nested(stages: tuple[Stage, ...], path: Path) -> Iterator[tuple[Path, Stage]]:
    """The same for the stages of a list."""
    for index, stage in enumerate(stages):
        here: Path = (*path, index, stage.kind)
        yield here, stage
        yield from nested(getattr(stage, "stages", ()), (*here, "stages"))


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
