"""What can go wrong with an environment while it plays, by kind, so that none is taken for an outcome of the policy."""

from __future__ import annotations

import traceback as tracebacks
from typing import Literal

from agentloop.errors import RunFailed

FailureKind = Literal[
    "environment.create",
    "environment.reset",
    "environment.step",
    "environment.timeout",
    "environment.protocol",
    "environment.divergence",
    "environment.crash",
]


class EnvironmentFailure(RunFailed):
    """An episode that broke in its environment. The instance is closed and replaced.

    Kinds: "environment.create" (`__init__` raised), "environment.reset", "environment.step" (any call during an episode
    raised), "environment.timeout" (a call did not return in time), "environment.protocol" (a call returned something that
    the protocol does not allow), "environment.divergence" (a replay of equal actions came back otherwise),
    "environment.crash" (a process that the environment lives by, such as a browser, died or stopped answering).

    Attributes:
        kind: See above.
        traceback: The full traceback of what the environment raised, for the first failure of each kind in a pool only; else None.
    """

    def __init__(self, kind: FailureKind, message: str, traceback: str | None = None) -> None:
        self.kind = kind
        self.traceback = traceback
        super().__init__(message)


def describe_error(error: BaseException, folder: str | None = None) -> str:
    """An error in a line, with the place that raised it: the innermost frame in `folder` if there is one, else the innermost."""
    frames = list(tracebacks.extract_tb(error.__traceback__))
    inside = [frame for frame in frames if folder is not None and frame.filename.startswith(folder)] or frames
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"{text} ({inside[-1].filename}:{inside[-1].lineno})" if inside else text


def format_error(error: BaseException) -> str:
    """The full traceback as text."""
    return "".join(tracebacks.format_exception(error))
