"""Gymnasium's observations as text, and text as its actions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_LETTERS = re.compile(r"[^\W_]+|[-+]?\d+(?:\.\d+)?")


class Unreadable(ValueError):
    """Text that is none of the space's actions; the message says what is expected."""


def shown(observation: Any) -> str:
    """An observation as text: text as it is, an array or a tuple as JSON, a dictionary with a line for each key."""
    if isinstance(observation, str):
        return observation
    if isinstance(observation, Mapping):
        return "\n".join(f"{key}: {shown(value)}" for key, value in observation.items())
    return json.dumps(plain(observation), ensure_ascii=False)


def plain(value: Any) -> Any:
    """A value of numpy or Gymnasium as JSON values."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | bool) or value is None else str(value)


def read_action(text: str, space: Any, names: Sequence[str]) -> Any:
    """What `text` means as an action of `space`.

    Args:
        text: What the model wrote.
        space: Gymnasium's action space: Discrete and Text are read as words; Box, MultiDiscrete, MultiBinary, Tuple and Dict as JSON.
        names: The names of a Discrete space's actions, in order.

    Raises:
        Unreadable: It is no action.
    """
    kind = type(space).__name__
    if kind == "Text":
        if space.contains(text):
            return text
        raise Unreadable(f"An action is text of {space.min_length} to {space.max_length} of the characters {space.characters[:80]}")
    if kind == "Discrete":
        return int(space.start) + _choice(text, int(space.start), names)
    try:
        value = json.loads(text)
        found = tuple(value) if kind == "Tuple" else value
        if kind in ("Box", "MultiDiscrete", "MultiBinary"):
            found = np.asarray(value, dtype=space.dtype)
        if space.contains(found):
            return found
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise Unreadable(
        f"An action is JSON that fits {str(space)[:200]}, for example {json.dumps(plain(space.low)) if kind == 'Box' else '...'}"
    )


def _choice(text: str, start: int, names: Sequence[str]) -> int:
    """Index of the action that is named, by its name or its number, alone or as the only one in a short sentence."""
    word = text.strip().strip(".!`'\"").casefold()
    known = [name.casefold() for name in names]
    if word in known:
        return known.index(word)
    number = re.fullmatch(r"[-+]?\d{1,9}", word)
    if number and start <= int(word) < start + len(names):
        return int(word) - start
    said = {index for index, name in enumerate(known) if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", word)}
    longest = {index for index in said if not any(known[index] != known[other] and known[index] in known[other] for other in said)}
    if len(longest) == 1 and len(word) <= 200:
        return longest.pop()
    raise Unreadable(f"An action is one of: {', '.join(names)}")
