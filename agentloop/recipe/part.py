"""What every part of the language is made of: a frozen model that refuses unknown keys, strict scalars, and the error that its validators
raise.

The scalars are strict because YAML has types of its own: `tasks: "64"` and `deduplicate: 1` are mistakes, not numbers and truths to be
guessed. A validator that finds something wrong raises `trouble(...)`; `agentloop.recipe.problem` turns it, like pydantic's own errors, into
one message with a line.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

from agentloop.errors import nearest


class Part(BaseModel):
    """Base of all models of the language."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, hide_input_in_errors=True)


Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
"""A whole number, 1 or more."""
Amount = Annotated[int, Strict(), Field(ge=0)]
"""A whole number, 0 or more."""
Number = Annotated[float, Strict(), AllowInfNan(False)]
NonNegative = Annotated[float, Strict(), AllowInfNan(False), Field(ge=0)]
Positive = Annotated[float, Strict(), AllowInfNan(False), Field(gt=0)]
Share = Annotated[float, Strict(), AllowInfNan(False), Field(ge=0, le=1)]
PositiveShare = Annotated[float, Strict(), AllowInfNan(False), Field(gt=0, le=1)]

NAME = r"^[A-Za-z_][A-Za-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME)]
"""A name that a recipe gives: letters, digits, '_' and '-', beginning with a letter. No '.', '/' or '@', which references use."""

TROUBLE = "trouble"
"""Error type of `trouble`, by which the translation knows it."""
EMPTY = "empty"
"""Error type of a list or mapping that must have an entry."""
SECRET = "secret"
"""Error type of a value that may be a secret, so that no message repeats it."""


def trouble(
    message: str,
    *,
    path: Sequence[str | int] = (),
    found: object = None,
    expected: str | None = None,
    near: str | None = None,
) -> PydanticCustomError:
    """The error for a validator to raise; `path` leads from the value that is validated to the one that is wrong."""
    context = {"message": message, "path": tuple(path), "found": found, "expected": expected, "near": near}
    return PydanticCustomError(TROUBLE, "{message}", context)


def _filled(value: object) -> object:
    if value in ([], {}, ()):
        raise PydanticCustomError(EMPTY, "is empty")
    return value


NotEmpty = BeforeValidator(_filled)
"""For lists and mappings. pydantic's own check counts only entries that are right."""


def unknown(kind: str, word: object, valid: Iterable[str], *, path: Sequence[str | int] = (), where: str = "") -> PydanticCustomError:
    """The error for a word that is none of the valid ones: the nearest of them, else all."""
    words = sorted(valid)
    near = nearest(str(word), words)
    expected = None if near else ("one of " if len(words) > 1 else "") + ", ".join(words)
    return trouble(f"unknown {kind} {word!r}{where}", path=path, expected=expected, near=near)
