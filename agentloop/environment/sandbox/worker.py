"""What runs programs inside the sandbox: one after another, with variables that stay, as in a notebook.

It reads a line `{"id": ..., "code": ...}` and answers with a line `{"id": ..., "text": ..., "raised": ...}`. Everything here lives in the
same process as the program, which may do with it what it likes: nothing in it protects anybody, and nobody outside trusts what it says.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import linecache
import os
import sys
import traceback
from typing import Any

from agentloop.environment.sandbox.limits import Limits

_LONGEST_TRACEBACK = 1_500


class Printed(io.TextIOBase):
    """What was printed: the first `most` characters, and how many more there were."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[str] = []
        self._kept = self._dropped = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        part = text[: self._most - self._kept]
        if part:
            self._parts.append(part)
            self._kept += len(part)
        self._dropped += len(text) - len(part)
        return len(text)

    def text(self) -> str:
        """All of it, as it is shown."""
        more = f"\n({self._dropped} more characters were left out)" if self._dropped else ""
        return "".join(self._parts).rstrip("\n") + more


def work(requests: int, replies: int, limits: Limits) -> None:
    """Answer requests until they end; both are file descriptors."""
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    with open(requests, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            asked = json.loads(line)
            text, raised = run(asked["code"], names, f"<program {number}>", limits.output)
            answer = json.dumps({"id": asked["id"], "text": text, "raised": raised}).encode() + b"\n"
            while answer:
                answer = answer[os.write(replies, answer) :]


def run(code: str, names: dict[str, Any], file: str, most: int) -> tuple[str, bool]:
    """What a program prints, and whether it raised. A last line that is an expression is printed, unless it is None."""
    printed = Printed(most)
    raised = False
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            tree = ast.parse(code, file)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, file, "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), file, "eval"), names)
                if value is not None:
                    print(repr(value))
        except BaseException as error:
            raised = True
            told = _told(error, file)
            printed = _with(printed, told, most)
    return printed.text(), raised


def _told(error: BaseException, file: str) -> str:
    """An exception as the program's author should see it: its own lines, and the message."""
    try:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = [f"  line {frame.lineno}: {frame.line}" for frame in frames[-3:]]
        text = "\n".join([*where, "".join(traceback.format_exception_only(error)).rstrip()])
        return text if len(text) <= _LONGEST_TRACEBACK else text[:_LONGEST_TRACEBACK] + " ..."
    except BaseException as second:  # an exception whose own text raises
        return f"{type(error).__name__} (and {type(second).__name__} when it was told)"


def _with(printed: Printed, told: str, most: int) -> Printed:
    """What was printed before, and the error, for which there is always room."""
    whole = Printed(most + _LONGEST_TRACEBACK + 200)
    before = printed.text()
    whole.write(before + "\n" + told if before else told)
    return whole


def prepare() -> None:
    """Make programs repeat themselves: chance has a seed, and standard streams lead nowhere."""
    import random

    random.seed(0)
    sys.stdin = io.StringIO()
