"""`--set a.b=c`: one value of a recipe changed from the command line.

The path goes by keys, by index or, for a stage, by its id: `stages.trees.samples=4`, `final.evaluate.tasks=10`, `engine.dtype=float32`. A
stage inside `repeat` or `tune` is found by its id too. The value is YAML. Keys that the recipe leaves out may be set; whether they are
known is for the validation to say, whose messages then name the argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentloop.errors import Mistake, nearest
from agentloop.recipe.settle import bodies, name_stages
from agentloop.recipe.source import Path, Source, parse_value
from agentloop.recipe.stages import KINDS

_LISTS = ("stages", "final")


def apply(source: Source, overrides: Sequence[str]) -> None:
    """Change the data in place and remember which argument wrote where. Raises `Mistake` that names the argument."""
    if overrides:
        name_stages(source.data)
    for override in overrides:
        argument = f"--set {override}"
        dotted, equals, text = override.partition("=")
        keys = dotted.split(".")
        if not equals or not all(keys):
            raise Mistake("not an override", file=argument, expected="--set KEY.KEY=VALUE")
        path = _place(source.data, keys, argument)
        _get(source.data, path[:-1])[path[-1]] = parse_value(text, argument)
        for line in [line for line in source.lines if line[: len(path)] == path]:
            del source.lines[line]
        source.arguments[path] = argument


def _place(data: dict[str, Any], keys: list[str], argument: str) -> Path:
    """Path of the value that dotted keys name; mappings that are left out on the way are made."""
    path: Path = ()
    dotted = ".".join(keys)
    if keys[0] in _LISTS and len(keys) > 1 and not keys[1].isdigit():
        path = _stage(data, keys[0], keys[1], argument)
        keys = keys[2:]
        if not keys:
            raise Mistake("a stage is not a value", file=argument, expected=f"--set {dotted}.KEY=VALUE")
    current = _get(data, path)
    for place, key in enumerate(keys):
        if _is_stage(current) and key not in current:  # a stage named by its index
            kind = next(iter(current))
            path, current = (*path, kind), current[kind]
        step = _step(current, key, ".".join(map(str, path)), argument)
        path = (*path, step)
        if place < len(keys) - 1:
            if isinstance(current, dict) and current.get(key) is None:
                current[key] = {}
            current = current[step]
    return path


def _step(current: Any, key: str, where: str, argument: str) -> str | int:
    """The key or index that leads on from a mapping or list."""
    if isinstance(current, dict):
        return key
    if not isinstance(current, list):
        raise Mistake(f"{where!r} is {current!r} and has no {key!r}", file=argument)
    if not key.isdigit() or int(key) >= len(current):
        raise Mistake(f"{where!r} has no entry {key!r}", file=argument, expected=f"an index from 0 to {len(current) - 1}")
    return int(key)


def _is_stage(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in KINDS


def _stage(data: Any, top: str, name: str, argument: str) -> Path:
    """Path of the settings of the stage with an id."""
    ids = {body["id"]: path for path, _, body in bodies(data) if path[0] == top and isinstance(body.get("id"), str)}
    if name not in ids:
        near = nearest(name, ids)
        listed = "one of " + ", ".join(ids) if ids else "a list of stages"
        raise Mistake(f"no stage {name!r} in {top!r}", file=argument, expected=None if near else listed, nearest=near)
    return ids[name]


def _get(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data
