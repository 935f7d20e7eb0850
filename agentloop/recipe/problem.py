"""Problems of a recipe: found by the models or the checks, each at a path, and told with file and line.

`of_validation` translates what pydantic found. Several problems become one `Mistake` with a line each, in the order of the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from agentloop.errors import Mistake, nearest
from agentloop.recipe.part import EMPTY, SECRET, TROUBLE
from agentloop.recipe.source import Path, Source
from agentloop.recipe.stages import KINDS, WORDS, model_of, tag_of
from agentloop.recipe.wording import described, words_of

MOST_TOLD = 10
"""More problems than this are counted, not told."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, at a path into the recipe's data."""

    path: Path
    message: str
    found: object = None
    expected: str | None = None
    near: str | None = None

    def mistake(self, source: Source) -> Mistake:
        """The message with its place."""
        file, line = source.place(self.path)
        return Mistake(self.message, file=file, line=line, found=_short(self.found), expected=self.expected, nearest=self.near)


def told(problems: Sequence[Problem], source: Source) -> Mistake:
    """All problems as one mistake, a line each, ordered as in the file; those of `--set` come last."""
    mistakes = [problem.mistake(source) for problem in problems]
    mistakes.sort(key=lambda mistake: (mistake.line is None, mistake.line or 0))
    lines = {str(mistake): mistake for mistake in mistakes}
    if len(lines) == 1:
        return mistakes[0]
    told_lines = list(lines)[:MOST_TOLD]
    if len(lines) > MOST_TOLD:
        told_lines.append(f"and {len(lines) - MOST_TOLD} more")
    return Mistake("\n".join(told_lines))


def _short(found: object) -> object:
    """What was found, cut where it would fill the screen."""
    if isinstance(found, Mapping):
        return "{" + ", ".join(map(str, found)) + "}"
    if isinstance(found, list | tuple):
        return "a list"
    if isinstance(found, str) and len(found) > 60:
        return found[:57] + "..."
    return found


def of_validation(error: ValidationError, data: Any, top: type[BaseModel]) -> list[Problem]:
    """The problems in a failed validation of `data` by `top`."""
    return [_problem(entry, data, top) for entry in error.errors(include_url=False)]


def _problem(entry: Mapping[str, Any], data: Any, top: type[BaseModel]) -> Problem:
    path, model = located(entry["loc"], data, top)
    kind = entry["type"]
    if kind == TROUBLE:
        context = entry["ctx"]
        return Problem((*path, *context["path"]), context["message"], context["found"], context["expected"], context["near"])
    where = described_place(path)
    if kind == "extra_forbidden":
        owners = _owners(path, model)
        if owners:
            return Problem(path, f"key {path[-1]!r}{where} belongs to {owners}")
        valid = _keys(model)
        near = nearest(str(path[-1]), valid)
        return Problem(path, f"unknown key {path[-1]!r}{where}", expected=None if near else "one of " + ", ".join(valid), near=near)
    if kind == "missing":
        takes = getattr(model, "takes", ()) if path[-1] == "from" else ()
        return Problem(path[:-1], f"missing key {path[-1]!r}{where}", expected=f"the name of {' or '.join(takes)}" if takes else None)
    message, expected = described(entry)
    found = None if kind in (EMPTY, SECRET) else "null" if entry["input"] is None else entry["input"]
    near = nearest(found, words_of(entry)) if kind == "literal_error" and isinstance(found, str) else None
    key = next((part for part in reversed(path) if isinstance(part, str)), "recipe")
    return Problem(path, f"{key!r}{where} {message}", found, None if near else expected, near)


def described_place(path: Path) -> str:
    """The part around a value: " in stage 'sample'", " in 'roles.critic'", or nothing at the top."""
    around = path[:-1]
    for index in range(len(around) - 1, 0, -1):
        if around[index] in KINDS and isinstance(around[index - 1], int):
            inner = ".".join(part for part in around[index + 1 :] if isinstance(part, str))
            return f" in {inner!r} of stage {around[index]!r}" if inner and inner != path[-1] else f" in stage {around[index]!r}"
    parts = ".".join(part for part in around if isinstance(part, str))
    return f" in {parts!r}" if parts and parts != path[-1] else ""


def located(loc: Sequence[str | int], data: Any, top: type[BaseModel]) -> tuple[Path, type[BaseModel]]:
    """(path into the data, model around the value) of the place that pydantic gives.

    pydantic leaves out the word before a stage's settings, and adds words for union members and keys; walking along the data puts both
    right.
    """
    path: Path = ()
    model, current = top, data
    for place, element in enumerate(loc):
        if _is_stage(current) and element not in current:
            kind = next(iter(current))
            model, path, current = model_of(tag_of(current)), (*path, kind), current[kind]
        here = isinstance(current, dict) and element in current
        if here or (isinstance(current, list) and isinstance(element, int) and element < len(current)):
            path, current = (*path, element), current[element]
            if here and place < len(loc) - 1:
                model = _model_of_key(model, str(element)) or model
        elif place == len(loc) - 1 and element in _keys(model):  # a missing key
            path = (*path, element)
    return path, model


def _is_stage(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in KINDS and isinstance(next(iter(value.values())), dict)


def _owners(path: Path, model: type[BaseModel]) -> str | None:
    """The words of the same kind of stage whose settings have this key: "method 'mcts'"."""
    kind = path[-2] if len(path) > 1 else None
    if kind not in WORDS or not isinstance(path[-3], int):
        return None
    key, _, _, models = WORDS[kind]
    words = [repr(word) for word, other in models.items() if other is not model and path[-1] in _keys(other)]
    return f"{key} {' or '.join(words)}" if words else None


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_of_key(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model that the value of a key is read with, if there is one; for a mapping or list, that of its entries."""
    return next((_first_model(field.annotation) for name, field in model.model_fields.items() if (field.alias or name) == key), None)


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) is not None:
        return next((model for part in get_args(annotation) if (model := _first_model(part)) is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
