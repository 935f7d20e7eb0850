"""`--set a.b=c`: one value of a recipe changed from the command line.

The path goes by keys, by index or, in a list of stages, by the stage's id: `stages.trees.samples=4`, `final.evaluate.tasks=10`,
`engine.dtype=float32`. A stage inside `repeat` or `tune` is found by its id too. The value is YAML. The last key may be one that the recipe leaves out.
"""

from __future__ import annotations

from typing import Any

from agentloop.errors import Mistake, nearest
from agentloop.recipe.settle import bodies, name_stages
from agentloop.recipe.source import Path, Source, parse_value

_LISTS = ("stages", "final")


def apply(source: Source, overrides: list[str]) -> None:
    """Change the data in place and remember which argument wrote where. Raises `Mistake` that names the argument."""
    for override in overrides:
        argument = f"--set {override}"
        dotted, equals, text = override.partition("=")
        if not equals or not dotted:
            raise Mistake("not an override", file=argument, expected="--set KEY.KEY=VALUE")
        value = parse_value(text, argument)
        name_stages(source.data)
        container, path = _container(source.data, dotted.split("."), argument)
        _put(container, path, value, argument)
        for line in [line for line in source.lines if line[: len(path)] == path]:
            del source.lines[line]
        source.arguments[path] = argument


def _container(data: Any, keys: list[str], argument: str) -> tuple[Any, Path]:
    """(what holds the last key, path of the value): walks along all keys but the last."""
    current, path = data, ()
    rest = keys
    if len(keys) > 2 and keys[0] in _LISTS and not keys[1].isdigit():
        path = _stage(data, keys[0], keys[1], argument)
        current = _get(data, path)
        rest = keys[2:]
    elif len(keys) == 2 and keys[0] in _LISTS and not keys[1].isdigit():
        raise Mistake("not a setting of a stage", file=argument, expected=f"--set {keys[0]}.{keys[1]}.KEY=VALUE")
    for depth, key in enumerate(rest[:-1]):
        step = _step(current, key, argument)
        path = (*path, step)
        if isinstance(current, dict) and current.get(step) is None:
            current[step] = {}
        current = current[step]
        if not isinstance(current, dict | list):
            raise Mistake(f"{'.'.join(keys[: len(keys) - len(rest) + depth + 1])!r} is {current!r}, so it has no {rest[depth + 1]!r}", file=argument)
        current, path = _into_stage(current, path, rest[depth + 1])
    return current, (*path, _step(current, rest[-1], argument, last=True))


def _into_stage(current: Any, path: Path, following: str) -> tuple[Any, Path]:
    """Skip the word of a stage that was named by index: `stages.0.samples` is `stages.0.sample.samples`."""
    from agentloop.recipe.stages import KINDS

    if isinstance(current, dict) and len(current) == 1 and isinstance(path[-1], int):
        kind = next(iter(current))
        if kind in KINDS and following != kind and isinstance(current[kind], dict):
            return current[kind], (*path, kind)
    return current, path


def _step(current: Any, key: str, argument: str, last: bool = False) -> str | int:
    if isinstance(current, list):
        if not key.isdigit() or int(key) >= len(current):
            raise Mistake(f"no entry {key!r}", file=argument, expected=f"an index from 0 to {len(current) - 1}")
        return int(key)
    return key


def _put(container: Any, path: Path, value: Any, argument: str) -> None:
    container[path[-1]] = value


def _stage(data: Any, key: str, name: str, argument: str) -> Path:
    """Path of the stage with an id."""
    ids = {body["id"]: path for path, _, body in bodies(data) if path[0] == key and isinstance(body.get("id"), str)}
    if name not in ids:
        near = nearest(name, ids)
        raise Mistake(f"no stage {name!r} in {key!r}", file=argument, expected=None if near else "one of " + ", ".join(ids), nearest=near)
    return ids[name]


def _get(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data
