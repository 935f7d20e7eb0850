"""Python literals in a model's text, read and never evaluated: the values of plain calls, and JSON written with single quotes."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

# A model's text goes through Python's own parser, which warns of an odd escape (\d) on standard error.
SOURCE_NAME = "<tool call>"
warnings.filterwarnings("ignore", category=SyntaxWarning, module=re.escape(SOURCE_NAME))

LONGEST = 50_000
"""Characters of one plain call beyond which it is not read."""

JSON_WORDS = {"true": True, "false": False, "null": None}
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What Python's and JSON's parsers raise on text that they cannot read."""


class NotLiteral(ValueError):
    """An argument that would have to be evaluated."""


def closing(text: str, opening: int) -> int | None:
    """Index after the parenthesis that closes the one at `opening`, quoted text skipped; None if there is none."""
    depth, quote, skip = 0, "", False
    for index in range(opening, min(len(text), opening + LONGEST)):
        character = text[index]
        if skip:
            skip = False
        elif quote:
            skip = character == "\\"
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth == 0:
                return index + 1
    return None


def literal_of(node: ast.expr) -> Any:
    """The JSON value that a literal stands for. Raises `NotLiteral` for anything that would have to be evaluated."""
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (str, int, float))):
        return node.value
    if isinstance(node, ast.Name) and node.id in JSON_WORDS:
        return JSON_WORDS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = literal_of(node.operand)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [literal_of(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [literal_of(key) if key is not None else None for key in node.keys]
        if all(isinstance(key, str) for key in keys):
            return dict(zip(keys, map(literal_of, node.values), strict=True))
    if isinstance(node, ast.Call):
        raise NotLiteral("a call inside a call is not run: make one call at a time and use its result")
    if isinstance(node, ast.Name):
        raise NotLiteral(f"{node.id} is not a value: write text in quotes")
    raise NotLiteral(f"{ast.unparse(node)} is not a plain value: it is not worked out for you")


def read_call(source: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Name, arguments by position and arguments by name of a plain call. Raises one of `UNREADABLE`."""
    node = ast.parse(source, filename=SOURCE_NAME, mode="eval").body
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise NotLiteral("not a call")
    positional = tuple(literal_of(argument) for argument in node.args)
    arguments = {keyword.arg: literal_of(keyword.value) for keyword in node.keywords if keyword.arg is not None}
    if len(arguments) != len(node.keywords):
        raise NotLiteral("** cannot be used")
    return node.func.id, positional, arguments


def python_literal(text: str) -> Any:
    """`text` as a Python literal of JSON values, or None."""
    try:
        return literal_of(ast.parse(text.strip(), filename=SOURCE_NAME, mode="eval").body)
    except UNREADABLE:
        return None


def reason_of(error: BaseException) -> str:
    """What was wrong with a text, for the model that wrote it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    if isinstance(error, SyntaxError):
        return f"it cannot be read ({error.msg})"
    if isinstance(error, ValueError):
        return str(error)[:200]
    return "it is nested too deeply"
