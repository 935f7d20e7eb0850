"""A part of a recipe at one moment of a training: every schedule `by: update` as the number that it is then."""

from __future__ import annotations

from typing import Any, TypeVar

from agentloop.recipe.part import Part
from agentloop.recipe.schedule import Scheduled

P = TypeVar("P", bound=Part)


def at_update(part: P, update: int) -> P:
    """The part with its schedules `by: update` read at this update, counted from 0; those by iteration stay what they are."""
    changes = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        now = _now(value, update)
        if now is not value:
            changes[name] = now
    return part.model_copy(update=changes) if changes else part


def _now(value: Any, update: int) -> Any:
    if isinstance(value, Scheduled):
        moves = value.by == "update" and value.shape in ("values", "cosine", "linear")
        return Scheduled.constant(value.at(0, update)) if moves else value
    if isinstance(value, Part):
        return at_update(value, update)
    if isinstance(value, dict):
        now = {key: _now(entry, update) for key, entry in value.items()}
        return now if any(now[key] is not value[key] for key in value) else value
    return value
