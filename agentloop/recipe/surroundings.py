"""What a recipe's words are checked against outside the recipe: its folder, the registered environments and the models' aliases.

The caller hands them in, so that this package imports none of the packages that know them. Without surroundings (a recipe built in Python)
names and paths are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentloop.errors import Mistake, nearest
from agentloop.recipe.part import trouble, unknown

MODEL_ALIASES = ("smollm2-135m", "tiny")
"""Models that have a name of their own; a test holds this against `agentloop.model`."""

OptionMistakes = Callable[[str, Mapping[str, Any]], Iterable[tuple[str, Mistake]]]
"""From an environment's id and its options to each option that is wrong, with the mistake; may raise one that is the environment's own."""

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a recipe was found and what it may name.

    Attributes:
        folders: Folders in which relative paths are looked for, in this order.
        environments: Registered names of environments; None leaves names unchecked.
        models: Aliases of models.
        option_mistakes: What is wrong with the options that an environment is given, by its name or path; None leaves them unchecked.
    """

    folders: tuple[Path, ...]
    environments: Collection[str] | None = None
    models: Collection[str] = MODEL_ALIASES
    option_mistakes: OptionMistakes | None = None


def existing(text: str, surroundings: Surroundings | None, *, what: str = "file") -> str:
    """The absolute path that `text` names, so that the resolved recipe means the same from any folder. Raises where there is none."""
    if surroundings is None:
        return text
    path = Path(text).expanduser()
    for folder in surroundings.folders:
        if (folder / path).exists():
            return str((folder / path).resolve())
    raise trouble(f"no such {what}: {text!r}", near=_sibling(path, surroundings))


def _sibling(path: Path, surroundings: Surroundings) -> str | None:
    """The file with the most similar name where the path leads, as it would be written."""
    for folder in surroundings.folders:
        parent = (folder / path).parent
        if parent.is_dir():
            near = nearest(path.name, [entry.name for entry in parent.iterdir()])
            if near is not None:
                return str(path.parent / near) if path.parent != Path(".") else f"./{near}"
    return None


def environment(text: str, surroundings: Surroundings | None) -> str:
    """A registered name, or the path of a Python file with an environment in it; FILE.py:CLASS where it holds several."""
    file, suffix, name = text.partition(".py:")
    if suffix:
        return f"{existing(file + '.py', surroundings)}:{name}"
    if text.endswith(".py") or "/" in text:
        return existing(text, surroundings)
    if surroundings is not None and surroundings.environments is not None and text not in surroundings.environments:
        raise unknown("environment", text, surroundings.environments)
    return text


def model(text: str, surroundings: Surroundings | None) -> str:
    """An alias, a folder or a hub id such as `org/name`."""
    if surroundings is None or text in surroundings.models:
        return text
    path = Path(text).expanduser()
    for folder in surroundings.folders:
        if (folder / path).is_dir():
            return str((folder / path).resolve())
    if text.startswith((".", "/", "~")):
        raise trouble(f"no such folder: {text!r}", expected="a folder with a model in it")
    if _HUB_ID.match(text):
        return text
    aliases = ", ".join(sorted(surroundings.models))
    near = nearest(text, surroundings.models)
    raise trouble(f"unknown model {text!r}", expected=None if near else f"{aliases}, a hub id (ORG/NAME) or a folder", near=near)


def function(text: str, surroundings: Surroundings | None) -> str:
    """FILE.py:FUNCTION, of which the file must exist."""
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise trouble("not a function in a file", found=text, expected="FILE.py:FUNCTION")
    return f"{existing(file, surroundings)}:{name}"
