"""Tool calls in a model's message, in any of the formats that models emit; and calls written out in one of them.

`parse_calls` never raises, whatever the text, and never evaluates anything: arguments are literals. Formats are tried
from the most explicit to the least, and the first that is present wins, so that a call that is merely mentioned beside
an explicit one does not run:

1. Hermes style: `<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>`; a closing tag that is missing is forgiven;
2. a fenced block: three backticks and `json`, `tool_call`, `python` or no label, with JSON or plain calls inside;
3. bare JSON anywhere in the text: `{"name": "add", "arguments": {"a": 1}}`, or OpenAI's `{"function": {...}}`, or a list of them;
4. a plain call, with keywords or by position: `add(a=1, b=2)`, `add(1, 2)`. A known tool is found anywhere in the text, an unknown one only
   where it fills a line.

A message that is one call in format 3 or 4 and nothing else is that call, whatever its arguments hold.

What looks like a call and cannot be read comes back as `Malformed`, with a reason that the model can learn from.
Thoughts (`<think>...</think>`) are left out first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from agentloop.environment.literals import UNREADABLE, closing, python_literal, read_call, reason_of

CallFormat = Literal["hermes", "fenced", "json", "plain"]

_MOST_ATTEMPTS = 64
"""Most places of one message at which a call is looked for, so that a hostile text costs no more than a long one."""
_LONGEST_MESSAGE = 50_000
"""Characters of a message beyond which no call is looked for."""
_THOUGHT = re.compile(r"\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_TAG = re.compile(r"<tool_call>")
_TAG_END = re.compile(r"</tool_call>|(?=<tool_call>)|\Z")
_FENCE = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\n")
_FENCE_END = re.compile(r"```|\Z")
_NEXT_JSON = re.compile(r"[\s,;]*(?=[{\[])")
_FENCE_LABELS = {"", "json", "tool_call", "tool", "tool_code", "python", "py"}
_JSON_CALL = re.compile(r"""[{\[][\s{\[]{0,20}["'](?:name|tool|function|type|arguments)["']\s*:""")
_CALL_LINE = re.compile(r"[ \t>*`-]*(?:[A-Za-z_]\w*[ \t]*=[ \t]*)?([A-Za-z_]\w*)[ \t]*\(")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that could be read: arguments by name, or by position where the model gave no names."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    positional: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Malformed:
    """Text that was meant as a call and cannot be read, with the reason in a few words."""

    source: str
    reason: str


def without_thoughts(text: str) -> str:
    """`text` without the thoughts it begins with: `<think>` blocks, closed or not; the first opening tag may be missing."""
    if not text.lstrip().startswith("<think>") and "</think>" in text:
        text = "<think>" + text  # the template put the opening tag into the prompt
    while match := _THOUGHT.match(text):
        text = text[match.end() :]
    return text.strip()


def parse_calls(text: str, names: Collection[str] = ()) -> tuple[Call | Malformed, ...]:
    """All calls of a message, in order; empty for a plain message. Never raises.

    Args:
        text: The model's message.
        names: Names of the tools that exist; needed to tell a plain call from prose.
    """
    text = without_thoughts(text)[:_LONGEST_MESSAGE]
    for parse in (_parse_whole, _parse_tagged, _parse_fenced, _parse_bare_json, _parse_plain):
        calls = tuple(parse(text, names))
        if calls:
            return calls
    return ()


def render_call(call: Call, style: CallFormat = "plain") -> str:
    """A call as a model would write it; `parse_calls` reads it back (arguments are JSON values)."""
    if style == "plain":
        parts = [repr(value) for value in call.positional]
        parts += [f"{key}={value!r}" for key, value in call.arguments.items()]
        return f"{call.name}({', '.join(parts)})"
    body = json.dumps(
        {"name": call.name, "arguments": call.arguments or list(call.positional)},
        ensure_ascii=False,
    )
    if style == "hermes":
        return f"<tool_call>\n{body}\n</tool_call>"
    return f"```json\n{body}\n```" if style == "fenced" else body


def _parse_whole(text: str, names: Collection[str]) -> Iterator[Call | Malformed]:
    """A message that is one call and nothing else, whatever its arguments look like."""
    if text.startswith(("{", "[")):
        value, end, reason = _read_json(text, 0)
        if reason is None and end == len(text):
            yield from _calls_of(value, text, names, strict=False)
        return
    name = re.match(r"([A-Za-z_]\w*)[ \t]*\(", text)
    if name and name.group(1) in names and closing(text, name.end() - 1) == len(text):
        call = _read_plain(text)
        if isinstance(call, Call):
            yield call


def _parse_tagged(text: str, names: Collection[str]) -> Iterator[Call | Malformed]:
    for _, body in _blocks(text, _TAG, _TAG_END):
        fence = _FENCE.match(body)
        body = body[fence.end() :].removesuffix("```").strip() if fence else body
        calls = tuple(_json_calls(body, names, strict=True))
        if not body.startswith(("{", "[")):
            calls = tuple(_parse_plain(body, names)) or calls
        yield from calls


def _parse_fenced(text: str, names: Collection[str]) -> Iterator[Call | Malformed]:
    for label, body in _blocks(text, _FENCE, _FENCE_END):
        if label.lower() not in _FENCE_LABELS:
            continue
        if body.startswith(("{", "[")):
            yield from _json_calls(body, names, strict=label.lower().startswith("tool"))
        else:
            yield from _parse_plain(body, names)


def _blocks(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """(label, content) of each block; a closing mark inside a JSON string does not close it."""
    position = 0
    for _ in range(_MOST_ATTEMPTS):
        start = opening.search(text, position)
        if start is None:
            return
        inside = start.end()
        while (following := _NEXT_JSON.match(text, inside)) and (read := _read_json(text, following.end()))[2] is None:
            inside = read[1]
        end = closing.search(text, inside)
        assert end is not None  # every closing pattern matches at the end of the text
        yield (start.group(1) if start.groups() else ""), text[start.end() : end.start()].strip()
        position = max(end.end(), start.end())


def _parse_bare_json(text: str, names: Collection[str]) -> Iterator[Call | Malformed]:
    position, problems, found = 0, [], False
    for _ in range(_MOST_ATTEMPTS):
        match = _JSON_CALL.search(text, position)
        if match is None:
            break
        value, end, reason = _read_json(text, match.start())
        position = max(end, match.start() + 1)
        if reason is None:
            for call in _calls_of(value, text[match.start() : end], names, strict=False):
                found = True
                yield call
        elif _looks_like_call(text[match.start() :], names):
            problems.append(Malformed(text[match.start() :], f"not valid JSON: {reason}"))
    if not found:
        yield from problems[:1]


def _json_calls(body: str, names: Collection[str], *, strict: bool) -> Iterator[Call | Malformed]:
    """Calls in the JSON values that `body` consists of; `strict` where anything but a call is an error."""
    position = 0
    for attempt in range(_MOST_ATTEMPTS):
        rest = body[position:].lstrip(" \t\r\n,;")
        if attempt and not rest.startswith(("{", "[")):
            return
        position = len(body) - len(rest)
        value, end, reason = _read_json(body, position)
        if reason is not None:
            if not attempt and (strict or _looks_like_call(body, names)):
                yield Malformed(body, f"not valid JSON: {reason}" if body else "the call is empty")
            return
        yield from _calls_of(value, body[position:end], names, strict=strict)
        position = end


def _read_json(text: str, start: int) -> tuple[Any, int, str | None]:
    """(value, where it ends, None) of the JSON at `start`, or (None, start, why it cannot be read)."""
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text, start)
        return value, end, None
    except UNREADABLE as error:
        reason = reason_of(error)
    end = closing(text, start) or start
    literal = python_literal(text[start:end])  # models also write single quotes and True
    return (literal, end, None) if isinstance(literal, (dict, list)) else (None, start, reason)


def _calls_of(value: object, source: str, names: Collection[str], *, strict: bool) -> Iterator[Call | Malformed]:
    if isinstance(value, list):
        for item in value[:_MOST_ATTEMPTS]:
            if isinstance(item, dict):
                yield from _calls_of(item, source, names, strict=strict)
            elif strict:
                yield Malformed(source, 'expected {"name": ..., "arguments": {...}}')
        return
    if not isinstance(value, dict):
        if strict:
            yield Malformed(source, 'expected {"name": ..., "arguments": {...}}')
        return
    function = value.get("function")
    if isinstance(function, dict):
        value = function
    elif isinstance(function, str):
        value = {"name": function, **value}
    name = value.get("name", value.get("tool"))
    key = next(
        (key for key in ("arguments", "parameters", "args", "input") if key in value),
        None,
    )
    if not isinstance(name, str) or (key is None and not strict and name not in names):
        if strict:
            yield Malformed(source, 'the key "name" is missing')
        return
    yield _call_with(name, value[key] if key else {}, source)


def _call_with(name: str, arguments: object, source: str) -> Call | Malformed:
    if isinstance(arguments, str):  # OpenAI's format gives the arguments as JSON inside a string
        try:
            arguments = json.loads(arguments or "{}")
        except UNREADABLE:
            return Malformed(source, '"arguments" must be an object such as {"a": 1}')
    if arguments is None:
        return Call(name)
    if isinstance(arguments, dict):
        return Call(name, arguments)
    if isinstance(arguments, list):
        return Call(name, positional=tuple(arguments))
    return Malformed(source, '"arguments" must be an object such as {"a": 1}')


def _looks_like_call(text: str, names: Collection[str]) -> bool:
    return re.search(r"""["'](?:name|tool|function)["']\s*:""", text[:2000]) is not None and (
        re.search(r"""["'](?:arguments|parameters|args)["']""", text) is not None or any(name in text for name in names)
    )


def _parse_plain(text: str, names: Collection[str]) -> Iterator[Call | Malformed]:
    known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    anywhere = re.compile(rf"(?<![\w.])({known})[ \t]*\(") if known else None
    position = 0
    for _ in range(_MOST_ATTEMPTS):
        inline = anywhere.search(text, position) if anywhere else None
        line = _next_call_line(text, position)
        match = min(
            (found for found in (inline, line) if found),
            key=lambda found: found.start(1),
            default=None,
        )
        if match is None:
            return
        start = match.start(1)
        fills_line = line is not None and line.start(1) == start
        end = closing(text, match.end() - 1)
        position = match.end()
        if match.group(1) == "print" and "print" not in names:
            continue
        if match.group(1) not in names and not (fills_line and end is not None and _ends_line(text, end)):
            continue
        call = _read_plain(text[start:end]) if end is not None else Malformed(text[start:][:200], "the closing parenthesis is missing")
        if not isinstance(call, Call) and not (fills_line and match.group(1) in names):
            continue  # a mention in a sentence, such as "use add(a, b)"
        yield call
        position = end if end is not None else position


def _next_call_line(text: str, position: int) -> re.Match[str] | None:
    """The next line that begins with something like a call."""
    start = position if position == 0 or text[position - 1] == "\n" else text.find("\n", position) + 1
    for _ in range(_MOST_ATTEMPTS):
        if start == 0 and position > 0:
            return None
        match = _CALL_LINE.match(text, start)
        if match:
            return match
        start = text.find("\n", start) + 1
        if start == 0:
            return None
    return None


def _ends_line(text: str, end: int) -> bool:
    return text[end:].split("\n", 1)[0].strip(" \t`.;*") == ""


def _read_plain(source: str) -> Call | Malformed:
    try:
        name, positional, arguments = read_call(source)
        return Call(name, arguments, positional)
    except UNREADABLE as error:
        return Malformed(source, reason_of(error))
