"""Words for pydantic's errors: what is wrong with a value and what was expected, in the terms of someone who writes YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentloop.recipe.part import EMPTY, SECRET

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
}

_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}

_PATTERNS = {
    r"^[A-Za-z_][A-Za-z0-9_-]*$": "letters, digits, '_' and '-', beginning with a letter",
    r"^https?://": "http://... or https://...",
}


def described(error: Mapping[str, Any]) -> tuple[str, str | None]:
    """(what is wrong with the value, what was expected) of one of pydantic's errors."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _TYPES:
        return "has the wrong type", _TYPES[kind]
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return "is out of range", f"{words} {context[key]:g}"
    if kind == "finite_number":
        return "is out of range", "a finite number"
    if kind == "literal_error":
        return "has an unknown value", str(context["expected"]).replace("'", "")
    if kind == "string_pattern_mismatch":
        return "is malformed", _PATTERNS.get(context["pattern"], f"something like {context['pattern']}")
    if kind == EMPTY:
        return "is empty", "one entry or more"
    if kind == SECRET:
        return "is no name of an environment variable", "its NAME; keys stay out of recipes"
    return "is wrong", str(error["msg"])


def words_of(error: Mapping[str, Any]) -> list[str]:
    """The words that a literal error expected."""
    return [word.strip("' ") for part in str(error["ctx"]["expected"]).split(",") for word in part.split(" or ")]
