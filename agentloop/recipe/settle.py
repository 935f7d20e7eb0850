"""Defaults that depend on other parts of the recipe, filled in before it is validated, so that the resolved recipe shows them.

- a stage without `id` is named after its kind: `train`, and `train_2` where that is taken;
- a `sample` without `tasks` plays as many as the environment says;
- a `train` without `start` starts where its role says.

Written for data that may still be wrong: what it does not understand it leaves for the validation to refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentloop.recipe.stage import ACTOR
from agentloop.recipe.stages import KINDS

Path = tuple[str | int, ...]


def bodies(data: object) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """(path, kind, settings) of every stage in the recipe's data, in order, outer stages before the ones inside."""
    if isinstance(data, dict):
        for key in ("stages", "final"):
            yield from _in_list(data.get(key), (key,))


def _in_list(stages: object, path: Path) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    if not isinstance(stages, list):
        return
    for index, stage in enumerate(stages):
        if not isinstance(stage, dict):
            continue
        for kind, body in stage.items():
            if kind in KINDS and isinstance(body, dict):
                here = (*path, index, kind)
                yield here, kind, body
                yield from _in_list(body.get("stages"), (*here, "stages"))


def settled(data: object) -> object:
    """The data with these defaults filled in; the data given is left as it is."""
    if not isinstance(data, dict):
        return data
    copy: dict[str, Any] = _copied(data)
    name_stages(copy)
    environment, roles = copy.get("environment"), copy.get("roles")
    tasks = environment.get("tasks") if isinstance(environment, dict) else None
    for _, kind, body in bodies(copy):
        if kind == "sample" and isinstance(tasks, int):
            body.setdefault("tasks", tasks)
        if kind == "train" and isinstance(roles, dict):
            role = roles.get(body.get("role", ACTOR)) if isinstance(body.get("role", ACTOR), str) else None
            if isinstance(role, dict) and isinstance(role.get("start"), str):
                body.setdefault("start", role["start"])
    return copy


def name_stages(data: dict[str, Any]) -> None:
    """Give every stage without an id its default one, in place."""
    stages = list(bodies(data))
    taken = {body["id"] for _, _, body in stages if isinstance(body.get("id"), str)}
    for _, kind, body in stages:
        if "id" not in body:
            number = 1
            while (name := kind if number == 1 else f"{kind}_{number}") in taken:
                number += 1
            taken.add(name)
            body["id"] = name


def _copied(value: Any) -> Any:
    """A copy of the mappings and lists; models that stand in them (a recipe built in Python) are kept."""
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(entry) for entry in value]
    return value
