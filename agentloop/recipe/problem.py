"""Problems of a recipe: found by the models or the checks, each at a path, and told with file and line.

`of_validation` translates what pydantic found. Several problems become one `Mistake` with a line each, in the order of the file.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from agentloop.errors import Mistake, nearest
from agentloop.recipe.part import TROUBLE
from agentloop.recipe.source import Path, Source

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
    """All problems as one mistake, a line each, ordered as in the file."""
    mistakes = [problem.mistake(source) for problem in problems]
    mistakes.sort(key=lambda mistake: (mistake.line is None, mistake.line or 0))
    if len(mistakes) == 1:
        return mistakes[0]
    lines = list(dict.fromkeys(str(mistake) for mistake in mistakes))
    if len(lines) > MOST_TOLD:
        lines = [*lines[:MOST_TOLD], f"and {len(lines) - MOST_TOLD} more"]
    return Mistake("\n".join(lines))


def _short(found: object) -> object:
    """What was found, cut where it would fill the screen."""
    if isinstance(found, Mapping):
        return "{" + ", ".join(map(str, found)) + "}" if found else "{}"
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
        valid = [field.alias or name for name, field in model.model_fields.items()]
        near = nearest(str(path[-1]), valid)
        return Problem(path, f"unknown key {path[-1]!r}{where}", expected=None if near else "one of " + ", ".join(valid), near=near)
    if kind == "missing":
        return Problem(path[:-1], f"missing key {path[-1]!r}{where}")
    message, expected = described(entry)
    found = entry["input"]
    near = None
    if kind == "literal_error" and isinstance(found, str):
        near = nearest(found, [word for word in _words(entry)])
    what = repr(next((str(part) for part in reversed(path) if isinstance(part, str)), "recipe"))
    return Problem(path, f"{what}{where} {message}", "null" if found is None else found, expected, near)


def _words(entry: Mapping[str, Any]) -> list[str]:
    return [word.strip("' ") for part in str(entry["ctx"]["expected"]).split(",") for word in part.split(" or ")]


_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "KEY: VALUE pairs",
    "model_type": "KEY: VALUE pairs",
    "model_attributes_type": "KEY: VALUE pairs",
    "finite_number": "a finite number",
}

_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def described(entry: Mapping[str, Any]) -> tuple[str, str | None]:
    """(what is wrong with the value, what was expected) of one of pydantic's errors."""
    kind, context = entry["type"], entry.get("ctx", {})
    if kind in _TYPES:
        return "has the wrong type", _TYPES[kind]
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return "is out of range", f"{words} {context[key]:g}"
    if kind == "literal_error":
        return "has an unknown value", str(context["expected"]).replace("'", "")
    if kind == "string_pattern_mismatch":
        return "is malformed", _PATTERNS.get(context["pattern"], f"something like {context['pattern']}")
    if kind in ("too_short", "string_too_short"):
        return "is empty", None
    return "is wrong", str(entry["msg"])


_PATTERNS = {
    r"^[A-Za-z_][A-Za-z0-9_-]*$": "letters, digits, '_' and '-', beginning with a letter",
    r"^https?://": "http://HOST:PORT or https://...",
    r"^[A-Z_][A-Z0-9_]*$": "the NAME of an environment variable",
}


def described_place(path: Path) -> str:
    """" in stage 'sample'", " in 'engine'" or nothing, for the part around a value."""
    from agentloop.recipe.stages import KINDS

    around = path[:-1]
    for index in range(len(around) - 1, 0, -1):
        if around[index] in KINDS and isinstance(around[index - 1], int):
            return f" in stage {around[index]!r}"
    parts = [part for part in around if isinstance(part, str)]
    return f" in {'.'.join(parts)!r}" if parts else ""


def located(loc: Sequence[str | int], data: Any, top: type[BaseModel]) -> tuple[Path, type[BaseModel]]:
    """(path into the data, model around the value) of the place that pydantic gives.

    pydantic leaves out the word before a stage's settings, and adds names of union members; both are put right by walking along the data.
    """
    from agentloop.recipe.stages import KINDS, WORDS, model_of, tag_of

    path: list[str | int] = []
    model, current = top, data
    for place, element in enumerate(loc):
        last = place == len(loc) - 1
        if isinstance(current, dict) and element not in current and len(current) == 1 and next(iter(current)) in KINDS:
            kind = next(iter(current))
            model = model_of(tag_of(current))
            path.append(kind)
            current = current[kind]
            _ = WORDS
        if isinstance(current, dict) and element in current:
            path.append(element)
            current = current[element]
            if not last:
                model = _model_in(model, str(element), current) or model
        elif isinstance(current, list) and isinstance(element, int) and element < len(current):
            path.append(element)
            current = current[element]
        elif last and isinstance(element, str) and element in _names(model):
            path.append(element)
    return tuple(path), model


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(model: type[BaseModel], key: str, value: Any) -> type[BaseModel] | None:
    """The model that a key's value is read with, if it is one; of a mapping of models, that of its values."""
    for name, field in model.model_fields.items():
        if (field.alias or name) == key:
            return _first_model(field.annotation)
    return None


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is None:
        return None
    return next((model for part in get_args(annotation) if (model := _first_model(part)) is not None), None)
