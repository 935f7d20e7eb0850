"""Tools that are described by a JSON schema (MCP, function calling) as `ToolSchema`, so that they are shown and checked like methods.

What the model sends is checked by a pydantic model with the types that the schema names, converted as those of methods are ("3" for an
integer). A type that cannot be told from the schema is taken as it comes, and left to whoever runs the tool. The schema that a model is
shown is the tool's own, with its references resolved.
"""

from __future__ import annotations

import functools
import operator
import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from agentloop.environment.signatures import ToolSchema
from agentloop.errors import Mistake

__all__ = ["ToolSchema", "describe_schema"]

_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": type(None),
    "object": dict[str, Any],
    "array": list[Any],
}
_DEEPEST = 20
"""References within references beyond which a schema, which may be recursive, is cut off."""


def describe_schema(name: str, description: str, schema: Mapping[str, Any]) -> ToolSchema:
    """A tool from the JSON schema of its arguments.

    Args:
        name: What the model calls it.
        description: What it does; the first paragraph is shown.
        schema: A schema of type object; its `properties` are the arguments.

    Raises:
        Mistake: The schema cannot be turned into types.
    """
    definitions = {f"#/{group}/{key}": value for group in ("$defs", "definitions") for key, value in schema.get(group, {}).items()}
    given = schema.get("properties") or {}
    # `true` is a schema too: anything goes.
    properties = {key: _resolved(value, definitions) if isinstance(value, Mapping) else {} for key, value in given.items()}
    needed = set(schema.get("required") or ())
    ordered = [key for key in properties if key in needed] + [key for key in properties if key not in needed]
    fields: dict[str, Any] = {}
    shown: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    try:
        for index, key in enumerate(ordered):
            own = properties[key]
            hint = _type(own)
            shown[key] = _shown(own)
            default: Any = ...
            if key not in needed:
                default = defaults[key] = own.get("default")
                hint = hint | None if default is None and hint is not Any else hint
            told = {part: value for part, value in own.items() if part != "title"}
            fields[f"argument_{index}"] = (Annotated[hint, pydantic.WithJsonSchema(told)], pydantic.Field(default, alias=key))
        model = pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)
    except (TypeError, ValueError, AttributeError, pydantic.errors.PydanticUserError) as error:
        raise Mistake(f"the schema of tool {name!r} cannot be read: {str(error).splitlines()[0]}", found=dict(schema)) from error
    return ToolSchema(
        name=name,
        summary=" ".join(re.split(r"\n\s*\n", (description or "").strip())[0].split()),
        descriptions={key: text for key in ordered if (text := " ".join(str(properties[key].get("description", "")).split()))},
        types=shown,
        required=tuple(key for key in ordered if key in needed),
        returns="",
        model=model,
        defaults=defaults,
    )


def _resolved(schema: Any, definitions: Mapping[str, Any], depth: int = 0) -> Any:
    """`schema` with what its references name in their place; nothing in the place of one that leads nowhere or for ever on."""
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            found = definitions.get(schema["$ref"], {}) if depth < _DEEPEST else {}
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            return _resolved({**found, **beside}, definitions, depth + 1)
        return {key: _resolved(value, definitions, depth + 1) if depth < 4 * _DEEPEST else {} for key, value in schema.items()}
    if isinstance(schema, list):
        return [_resolved(item, definitions, depth + 1) for item in schema]
    return schema


def _type(schema: Any) -> Any:
    """The Python type of a resolved schema; `Any` where it does not say."""
    if not isinstance(schema, Mapping):
        return Any
    if "const" in schema:
        return Literal[schema["const"]] if isinstance(schema["const"], str | int | bool) else Any
    if "enum" in schema:
        words = schema["enum"]
        plain = bool(words) and all(word is None or isinstance(word, str | int | bool) for word in words)
        return Literal[tuple(words)] if plain else Any
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _either([_type(branch) for branch in schema[union]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _either([_type({**schema, "type": one}) for one in kind])
    if kind == "array":
        items = _type(schema.get("items"))
        return list[items]  # type: ignore[valid-type]
    return _TYPES.get(str(kind), Any)


def _either(hints: list[Any]) -> Any:
    return Any if Any in hints else functools.reduce(operator.or_, hints)


def _shown(schema: Any) -> str:
    """A resolved schema as the model reads it in a signature: "int", "list[str]", "Literal['a', 'b']"."""
    if not isinstance(schema, Mapping):
        return "Any"
    hint = _type(schema)
    if hint is Any:
        return "Any"
    if isinstance(hint, types.UnionType):
        branches = schema.get("anyOf") or schema.get("oneOf") or [{**schema, "type": one} for one in schema["type"]]
        return " | ".join(_shown(branch) for branch in branches)
    if hint == dict[str, Any]:
        return "dict"
    if schema.get("type") == "array" and "enum" not in schema and "const" not in schema:
        inner = _shown(schema.get("items"))
        return "list" if inner == "Any" else f"list[{inner}]"
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
