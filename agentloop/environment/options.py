"""Options that a recipe gives an environment, held against its `__init__`: a misspelt one never plays with the default."""

from __future__ import annotations

import inspect
import re
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentloop.environment.base import Environment
from agentloop.errors import Mistake, nearest


def parameters(environment: type[Environment]) -> dict[str, inspect.Parameter]:
    """The options that `environment` takes, by name; a `**kwargs` is left out."""
    found = list(inspect.signature(environment.__init__).parameters.values())[1:]
    return {parameter.name: parameter for parameter in found if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)}


def check_options(id: str, environment: type[Environment], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with the types that `__init__` declares.

    Raises:
        Mistake: An option is unknown, missing or of the wrong type.
    """
    for _, mistake in option_mistakes(id, environment, options):
        raise mistake
    return {name: _converted(id, environment, name, value) for name, value in options.items()}


def option_mistakes(id: str, environment: type[Environment], options: Mapping[str, Any]) -> Iterator[tuple[str, Mistake]]:
    """Each option that is unknown, missing or of the wrong type, with the mistake."""
    if environment.__init__ is object.__init__:
        known: dict[str, inspect.Parameter] = {}
        anything = False
    else:
        known = parameters(environment)
        anything = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(environment.__init__).parameters.values())
    for name in options:
        if name not in known and not anything:
            expected = f"one of {', '.join(known)}" if known else "none, since it takes no options"
            yield name, Mistake(f"unknown option {name!r} of environment {id!r}", expected=expected, nearest=nearest(name, known))
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            yield name, Mistake(f"environment {id!r} needs the option {name!r}")
    for name, value in options.items():
        try:
            _converted(id, environment, name, value)
        except Mistake as mistake:
            yield name, mistake


def make(
    id: str, environment: type[Environment], options: Mapping[str, Any], *, install: Callable[[str | None], str], own_file: bool
) -> Environment:
    """An instance.

    Args:
        id: The environment, for messages.
        environment: Its class.
        options: Checked by `check_options`.
        install: What to type when a module is missing.
        own_file: Whether it is the user's own file, whose lines belong in a message.

    Raises:
        Mistake: A package is missing, or `__init__` raised a `ValueError`. Anything else that it raises goes through.
    """
    try:
        return environment(**options)
    except ModuleNotFoundError as error:
        raise Mistake(f"environment {id!r} needs the module {error.name!r}; install it with: {install(error.name)}") from error
    except ValueError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        message = f"environment {id!r} refuses its options ({given}): {error}"
        raise (Mistake(message, file=last.filename, line=last.lineno) if own_file else Mistake(message)) from error


def _converted(id: str, environment: type[Environment], name: str, value: object) -> Any:
    """`value` as the type that `__init__` declares for it; as it is where none is declared or the type has no schema."""
    import pydantic

    try:
        hint = typing.get_type_hints(environment.__init__, include_extras=True).get(name)
        adapter = pydantic.TypeAdapter(hint) if hint is not None else None
    except Exception:
        return value
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as refusal:
        error = max(refusal.errors(include_url=False), key=_relevance)
        words = re.findall(r"'([^']*)'", error["ctx"]["expected"]) if error["type"] == "literal_error" else []
        raise Mistake(
            f"option {name!r} of environment {id!r}: {error['msg'][0].lower()}{error['msg'][1:]}",
            found=error["input"],
            nearest=nearest(str(error["input"]), words),
        ) from None


def _relevance(error: Mapping[str, Any]) -> tuple[int, int]:
    """How much an error says. Where several types are allowed each has its error; that of the nearest type says most."""
    told = 0 if error["type"].endswith("_type") else 1 if error["type"] == "literal_error" else 2
    return len(error["loc"]), told
