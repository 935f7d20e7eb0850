"""A typed method as a tool: its names, types and docstring become the schema that the model sees and the check of what the model sends.

Annotations are resolved when the environment is made, so that a tool that cannot be described is the user's mistake,
named with file and line, and never a surprise in the middle of a run.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import docstring_parser
import pydantic

from agentloop.environment.calls import Call
from agentloop.errors import Mistake, nearest

_LONGEST_MESSAGE = 300
"""Characters of an error that the model is shown."""


class BadArguments(Exception):
    """Arguments that do not fit a tool; the message is written for the model."""


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """What is known of one tool.

    Attributes:
        name: Name of the method.
        summary: First paragraph of its docstring in one line.
        descriptions: What the docstring says of each argument; arguments it does not mention are left out.
        types: The type of each argument as a reader would write it, for example "int" or "list[str]"; in order.
        required: Arguments without a default.
        returns: The type of the result, or "" where none is given.
        model: Pydantic model of the arguments, fields by alias, nothing extra allowed.
        defaults: Default of each argument that has one.
    """

    name: str
    summary: str
    descriptions: dict[str, str]
    types: dict[str, str]
    required: tuple[str, ...]
    returns: str
    model: type[pydantic.BaseModel]
    defaults: dict[str, Any]

    def signature(self) -> str:
        """The tool in one line, as Python would write it: `add(a: int, b: int = 0) -> int`."""
        parts = []
        for argument, type_name in self.types.items():
            default = f" = {self.defaults[argument]!r}" if argument in self.defaults else ""
            parts.append(f"{argument}: {type_name}{default}")
        arrow = f" -> {self.returns}" if self.returns else ""
        return f"{self.name}({', '.join(parts)}){arrow}"

    def json_schema(self) -> dict[str, Any]:
        """The tool in the form of function calling: `{"type": "function", "function": {"name", "description", "parameters"}}`."""
        parameters = _without_titles(self.model.model_json_schema(by_alias=True))
        parameters.pop("additionalProperties", None)
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.summary,
                "parameters": parameters,
            },
        }

    def arguments(self, call: Call) -> dict[str, Any]:
        """The arguments of `call`, checked and converted, by name. Raises `BadArguments`."""
        names = list(self.types)
        if len(call.positional) > len(names):
            raise BadArguments(f"{self.name} takes {len(names)} arguments, {len(call.positional)} were given")
        given = dict(zip(names, call.positional, strict=False))
        twice = sorted(set(given) & set(call.arguments))
        if twice:
            raise BadArguments(f"{self.name}: argument {twice[0]} was given twice")
        given.update(call.arguments)
        try:
            checked = self.model.model_validate(given)
        except pydantic.ValidationError as error:
            raise BadArguments(self._explain(error)) from None
        return {name: getattr(checked, f"argument_{index}") for index, name in enumerate(names)}

    def _explain(self, error: pydantic.ValidationError) -> str:
        """Pydantic's findings in a line: which argument, what was wrong, what was found."""
        parts = []
        for problem in error.errors(include_url=False)[:3]:
            where = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "missing":
                parts.append(f"argument {where} is missing")
            elif problem["type"] == "extra_forbidden":
                near = nearest(where, self.types)
                parts.append(f"there is no argument {where}" + (f", did you mean {near}?" if near else ""))
            else:
                message = problem["msg"][0].lower() + problem["msg"][1:]
                parts.append(f"argument {where}: {message}, found {problem['input']!r:.60}")
        return f"{self.name}: {'; '.join(parts)}"[:_LONGEST_MESSAGE]


def describe(function: Callable[..., Any]) -> ToolSchema:
    """The schema of a method (its first parameter is `self`). Raises `Mistake` if it cannot be described."""
    name = function.__name__
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise _mistake(function, f"the types of tool {name!r} cannot be resolved: {error}") from error
    document = docstring_parser.parse(inspect.cleandoc(function.__doc__ or ""))
    descriptions = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in document.params}
    fields: dict[str, Any] = {}
    types: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    for index, parameter in enumerate(list(inspect.signature(function).parameters.values())[1:]):
        argument = parameter.name
        if parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
            parameter.POSITIONAL_ONLY,
        ):
            raise _mistake(
                function,
                f"tool {name!r} has {parameter}, which a schema cannot describe",
                "arguments with a name and a type",
            )
        if argument not in hints:
            raise _mistake(
                function,
                f"argument {argument!r} of tool {name!r} has no type",
                f"for example '{argument}: int'",
            )
        if parameter.default is not parameter.empty:
            defaults[argument] = parameter.default
        default = defaults.get(argument, ...)
        if argument not in descriptions:
            descriptions[argument] = _annotated_description(hints[argument])
        # Fields get names of our own, since an argument may be called `schema` or `_x`, which pydantic keeps for itself.
        field = pydantic.Field(default, alias=argument, description=descriptions[argument] or None)
        fields[f"argument_{index}"] = (hints[argument], field)
        types[argument] = _type_name(hints[argument])
    try:
        model = pydantic.create_model(
            name,
            __config__=pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=False),
            **fields,
        )
    except Exception as error:
        raise _mistake(
            function,
            f"tool {name!r} has an argument type without a schema: {str(error).splitlines()[0]}",
        ) from error
    summary = " ".join((document.short_description or "").split())
    returns = _type_name(hints["return"]) if hints.get("return", type(None)) is not type(None) else ""
    return ToolSchema(
        name=name,
        summary=summary,
        descriptions={argument: text for argument, text in descriptions.items() if text and argument in types},
        types=types,
        required=tuple(argument for argument in types if argument not in defaults),
        returns="" if returns == "StepResult" else returns,
        model=model,
        defaults=defaults,
    )


def _annotated_description(hint: Any) -> str:
    """What `Annotated[type, "text"]` or `Annotated[type, Field(description="text")]` says of an argument."""
    for note in getattr(hint, "__metadata__", ()):
        text = note if isinstance(note, str) else getattr(note, "description", None)
        if isinstance(text, str):
            return text
    return ""


def _type_name(hint: Any) -> str:
    """A type as a reader would write it."""
    if typing.get_origin(hint) is typing.Annotated:
        return _type_name(typing.get_args(hint)[0])
    if hint is type(None):
        return "None"
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    text = inspect.formatannotation(hint)
    return text.replace("typing.", "").replace("collections.abc.", "").replace("NoneType", "None")


def _without_titles(schema: Any) -> Any:
    """A JSON schema without the titles that pydantic adds, which cost tokens and say nothing."""
    if isinstance(schema, dict):
        return {
            key: {name: _without_titles(value) for name, value in item.items()} if key in ("properties", "$defs") else _without_titles(item)
            for key, item in schema.items()
            if not (key == "title" and isinstance(item, str))
        }
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    return schema


def _mistake(function: Callable[..., Any], message: str, expected: str | None = None) -> Mistake:
    code = function.__code__
    return Mistake(message, file=code.co_filename, line=code.co_firstlineno, expected=expected)
