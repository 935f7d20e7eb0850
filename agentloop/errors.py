"""The two kinds of error that a user meets, each with the exit code that the command line gives it.

`Mistake` is something the user can put right before anything runs: it always says where, what was found, what was expected and, when a
word was misspelt, the nearest valid one. `RunFailed` is a run that could not go on: it says what failed and how to continue. Both are
raised where the cause is known and printed once, in `agentloop.cli`; nothing in between catches them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AgentloopError(Exception):
    """Base of all errors that end in a message instead of a traceback."""

    exit_code = 1


class Mistake(AgentloopError):
    """A mistake of the user's: a bad recipe, argument, path or name. Exit code 2.

    `str()` gives one short message, for example::

        recipes/mine.yaml:12: unknown key 'simulation' in stage 'sample'; did you mean 'simulations'?
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        found: object = None,
        expected: str | None = None,
        nearest: str | None = None,
    ) -> None:
        self.message = message
        self.file = file
        self.line = line
        self.found = found
        self.expected = expected
        self.nearest = nearest
        super().__init__(self._render())

    def _render(self) -> str:
        where = ""
        if self.file is not None:
            where = f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: "
        parts = [self.message]
        if self.found is not None:
            parts.append(f"found {self.found!r}")
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        text = where + "; ".join(parts)
        if self.nearest is not None:
            text += f"; did you mean {self.nearest!r}?"
        return text


class RunFailed(AgentloopError):
    """A run that cannot go on, with the cause and what to do about it. Exit code 1."""


class WaitedTooLong(RunFailed):
    """A wait that reached its timeout; the message names what it waited for and for how long (seconds)."""

    def __init__(self, what: str, seconds: float, hint: str = "") -> None:
        self.what = what
        self.seconds = seconds
        super().__init__(f"waited {seconds:g} s for {what}, in vain" + (f"; {hint}" if hint else ""))


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word most like `word`, or None when none is like it."""
    close = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)
    return close[0] if close else None
