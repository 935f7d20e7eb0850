"""Worked examples of one's own: a YAML or JSON file with a list of conversations, checked line by line.

- - {role: user, content: "What is 3 + 4?"}           # an example begins with what the environment says,
  - {role: assistant, content: "add(first=3, second=4)"}
  - {role: user, content: "7"}                        # goes on in turns,
  - {role: assistant, content: "7"}                   # and ends with what the model is to say
- - {role: user, content: "What is 5 + 1?"}
  - ...
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from agentloop.errors import nearest
from agentloop.recipe.problem import Problem, told
from agentloop.recipe.source import Path, read_values

ROLES = ("user", "assistant")
MESSAGE = "{role: user | assistant, content: TEXT}"
EXPECTED = "- - {role: user, content: ...} and so on"

Examples = tuple[tuple[dict[str, str], ...], ...]
"""Conversations, each a sequence of messages `{"role": "user" | "assistant", "content": text}`."""


def read_examples(path: FilePath) -> Examples:
    """The worked examples in a file.

    Raises:
        Mistake: With file and line of everything that is wrong.
    """
    shown = path.relative_to(FilePath.cwd()) if path.is_relative_to(FilePath.cwd()) else path
    source = read_values(path, str(shown))
    problems = list(_problems(source.data))
    if problems:
        raise told(problems, source)
    return tuple(tuple(_message(entry) for entry in example) for example in source.data)


def _problems(data: Any) -> Iterator[Problem]:
    if not isinstance(data, list) or not data:
        yield Problem((), "worked examples are a list of conversations", data, EXPECTED)
        return
    for index, example in enumerate(data):
        if not isinstance(example, list) or not example:
            yield Problem((index,), "an example is a list of messages", example, EXPECTED)
            continue
        wrong = [problem for place, entry in enumerate(example) for problem in _of_message((index, place), entry, ROLES[place % 2])]
        yield from wrong
        if not wrong and len(example) % 2:
            yield Problem((index, len(example) - 1), "an example ends with what the model is to say", "user", "a last message of assistant")


def _of_message(path: Path, entry: Any, turn: str) -> Iterator[Problem]:
    """What is wrong with one message, which is `turn`'s."""
    if not isinstance(entry, dict):
        yield Problem(path, "a message is a mapping", entry, MESSAGE)
        return
    for key in entry:
        if key not in ("role", "content"):
            near = nearest(key, ("role", "content"))
            yield Problem((*path, key), f"unknown key {key!r} of a message", expected=None if near else "role and content", near=near)
    for key in ("role", "content"):
        if key not in entry:
            yield Problem(path, f"missing key {key!r} of a message", expected=MESSAGE)
    role, content = entry.get("role", turn), entry.get("content", "")
    if role not in ROLES:
        yield Problem((*path, "role"), "unknown role of a message", role, "user or assistant")
    elif role != turn:
        yield Problem((*path, "role"), "user and assistant take turns, the user first", role, turn)
    if not isinstance(content, str):
        yield Problem((*path, "content"), "the content of a message is text", content, "text, in quotes where it looks like something else")


def _message(entry: dict[str, str]) -> dict[str, str]:
    return {"role": entry["role"], "content": entry["content"]}
