"""References to artifacts, as `from` and its like write them: `rows`, `rows@previous`, `rows@all`, or a file of one's own.

A name with a '.' or a '/' is a file. `x` is what this iteration made; `x@previous` what the iteration before made (nothing, in the first);
`x@all` what every iteration up to now made. Inside `repeat` the rounds of the innermost repetition that holds both the maker and the reader
are counted instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from agentloop.errors import nearest
from agentloop.recipe.part import NAME, trouble
from agentloop.recipe.surroundings import existing

Occasion = Literal["this", "previous", "all"]

PATTERN = r"^[^@]+(@previous|@all)?$"


@dataclass(frozen=True, slots=True)
class Reference:
    """One artifact that a stage reads.

    Attributes:
        name: Name of the artifact or store; the path, if it is a file.
        occasion: Of which iterations.
        file: Whether it is a file of the user's own.
    """

    name: str
    occasion: Occasion = "this"
    file: bool = False

    def __str__(self) -> str:
        return self.name if self.occasion == "this" else f"{self.name}@{self.occasion}"

    @classmethod
    def parse(cls, text: object, info: ValidationInfo | None = None) -> Reference:
        """Read a reference; a file is looked for beside the recipe and in the working directory, where `info` knows them."""
        if isinstance(text, Reference):
            return text
        if not isinstance(text, str):
            raise trouble("not a name of an artifact", found=text, expected="NAME, NAME@previous, NAME@all or a file")
        if "." in text or "/" in text:
            return cls(existing(text, info.context if info else None), file=True)
        name, at, occasion = text.partition("@")
        occasions = get_args(Occasion)[1:]
        if at and occasion not in occasions:
            near = nearest(occasion, occasions)
            raise trouble(f"{text!r} is no reference", expected="NAME, NAME@previous or NAME@all", near=f"{name}@{near}" if near else None)
        if not re.match(NAME, name):
            raise trouble(f"{text!r} is no reference", expected="NAME, NAME@previous, NAME@all or a file")
        return cls(name, occasion or "this")  # type: ignore[arg-type]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": PATTERN}


def _listed(value: object) -> object:
    """One reference is a list of one."""
    if isinstance(value, list | tuple):
        if not value:
            raise trouble("an empty list", expected="one or more references")
        return value
    return [value]


def _shortest(value: tuple[Reference, ...]) -> str | list[str]:
    return str(value[0]) if len(value) == 1 else [str(reference) for reference in value]


References = Annotated[
    tuple[Reference, ...],
    BeforeValidator(_listed),
    PlainSerializer(_shortest),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": PATTERN},
                {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": PATTERN}},
            ]
        }
    ),
]
"""One reference or a list of them, always a tuple once read."""

ReferenceText = Annotated[str, AfterValidator(lambda text, info: str(Reference.parse(text, info))), Field(pattern=PATTERN)]
"""A reference as the key of a mapping."""
