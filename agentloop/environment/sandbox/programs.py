"""The programs in what a model wrote: fenced blocks of Python, or calls of a tool `python`."""

from __future__ import annotations

import re

from agentloop.environment.calls import Call, parse_calls, without_thoughts

_BLOCK = re.compile(r"```[ \t]*(?:python3?|py)[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL | re.IGNORECASE)
_ARGUMENTS = ("code", "program", "source", "input")


def programs(text: str) -> tuple[str, ...]:
    """The programs of a message, in order; none for a message without. Never raises.

    A block between ```` ```python ```` and ```` ``` ```` is one, its end may be missing; so is `<tool_call>{"name": "python", "arguments":
    {"code": ...}}</tool_call>`, in any format that `parse_calls` reads. Blocks come first: where there are some, calls are not looked for.
    Thoughts are left out.
    """
    text = without_thoughts(text)
    if blocks := [block for block in _BLOCK.findall(text) if block.strip()]:
        return tuple(blocks)
    found = []
    for call in parse_calls(text, ("python",)):
        if isinstance(call, Call) and call.name == "python":
            named = next((call.arguments[name] for name in _ARGUMENTS if name in call.arguments), None)
            code = named if named is not None else next(iter(call.positional), None)
            if isinstance(code, str) and code.strip():
                found.append(code)
    return tuple(found)
