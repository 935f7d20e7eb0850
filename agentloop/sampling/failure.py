"""Failed episodes of a stage: counted by kind, the first traceback of each kind kept, and the stage stopped when they are too many.

A failed episode is one that broke, because the environment or the engine gave way; it is never recorded as an empty trajectory and never
as an outcome of the policy. The share of failures is taken of the episodes that have *started*, not of those that have ended: what fails
often fails in milliseconds, and among the first to end there would be nothing else.
"""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field, replace

from agentloop.engine.base import EngineFailure
from agentloop.environment.failure import EnvironmentFailure
from agentloop.errors import RunFailed
from agentloop.trace.tree import Failure

PERMANENT = frozenset(
    {"engine.adapter", "engine.context", "engine.memory", "engine.port", "engine.request", "environment.protocol", "context.start"}
)
"""Kinds of failure that would only happen again, so that the episode is not retried."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Work that gave way for a reason that is no outcome of the policy.

    Attributes:
        kind: "engine.KIND", the environment's own kind, or "episode.cancelled" where something inside cancelled it.
        error: What was raised.
    """

    kind: str
    error: BaseException

    def failure(self, sample: int, turn: str | None) -> Failure:
        """What is kept of it in a tree."""
        message = str(self.error) or type(self.error).__name__
        return Failure(self.kind, message, sample, turn, "".join(traceback.format_exception(self.error)))


def kind_of(error: EngineFailure | EnvironmentFailure) -> str:
    """The kind that a failure of the engine or the environment is counted under."""
    return f"engine.{error.kind}" if isinstance(error, EngineFailure) else error.kind


@dataclass
class FailureLog:
    """What failed so far.

    Attributes:
        max_failures: Share of started episodes that may fail, 0 to 1.
        few: Started episodes below which the share is not judged yet.
        counts: Failed episodes by kind.
        retried: Attempts that failed and were played again, by kind.
        first: The first failure of each kind, with its traceback.
        what: What is counted, for the message.
    """

    max_failures: float
    few: int
    counts: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    first: dict[str, Failure] = field(default_factory=dict)
    what: str = "episodes"

    def add(self, failure: Failure) -> Failure:
        """Count a failure; it is returned without its traceback unless it is the first of its kind."""
        self.counts[failure.kind] += 1
        if self.first.setdefault(failure.kind, failure) is failure:
            return failure
        return replace(failure, traceback=None)

    def add_retry(self, failure: Failure) -> None:
        """Count an attempt that will be played again."""
        self.retried[failure.kind] += 1
        self.first.setdefault(failure.kind, failure)

    def check(self, started: int, *, ended: bool = False) -> None:
        """Stop the stage if too many of the `started` episodes failed; `ended` says that no more will come, however few they were.

        Raises:
            RunFailed: The share of failures is above `max_failures`; the message shows failures by kind and a traceback of each.
        """
        failed = self.counts.total()
        if (started >= self.few or ended) and failed > self.max_failures * started:
            raise RunFailed(self.message(started))

    def message(self, started: int) -> str:
        """What failed, how often, and the first traceback of each kind."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.counts.most_common())
        lines = [
            f"{self.counts.total()} of {started} {self.what} failed, more than max_failures allows ({self.max_failures:g}): {kinds}",
            "what was finished is kept; the same command goes on and plays the failed ones again",
        ]
        for kind, _ in self.counts.most_common():
            failure = self.first[kind]
            lines.append(f"\nfirst {kind}: {failure.message}")
            if failure.traceback:
                lines.append(failure.traceback.rstrip())
        return "\n".join(lines)


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, which is what stopped the others."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
