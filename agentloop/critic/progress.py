"""How far judging is: the numbers, and one line of them. Who draws the line is the caller's affair."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from agentloop.trace.tree import Turn


@dataclass
class JudgeProgress:
    """The numbers of one judging stage while it runs; all are of this attempt, `resumed` apart.

    Attributes:
        name: What runs, the stage's id.
        total: Trees in all.
        resumed: Trees that an earlier attempt had judged.
        finished: Trees judged now.
        asked: Questions asked now, however many votes each.
        labels: Answers by their label; those that could not be read are in `unreadable` alone.
        unreadable: Answers that could not be read, after they were asked for again.
        again: Answers that had to be asked for again.
        shortened: Questions that did not fit and were asked with fewer steps.
        failures: Questions that were not answered, by kind.
        retried: Requests that failed and were sent again, by kind of failure.
        prompt: Prompt tokens sent.
        cached: Of these, taken from the engine's prefix cache.
        generated: Tokens generated.
        clock: Seconds from any origin.
    """

    name: str
    total: int
    resumed: int = 0
    finished: int = 0
    asked: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    again: int = 0
    shortened: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    prompt: int = 0
    cached: int = 0
    generated: int = 0
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def done(self) -> int:
        """Trees that are judged."""
        return self.resumed + self.finished

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    def add(self, turn: Turn, context: int) -> None:
        """Count an answer of the judge that was given in a context of so many tokens."""
        if turn.foreign:
            self.prompt += int(turn.info.get("prompt_tokens", 0))
            self.generated += int(turn.info.get("completion_tokens", 0))
        else:
            self.prompt += context
            self.cached += turn.cached_tokens
            self.generated += len(turn.completion_ids)

    def line(self) -> str:
        """All of it in one line."""
        parts = [f"{self.name}: {self.done}/{self.total} trees"]
        if self.resumed:
            parts.append(f"{self.resumed} of them before")
        if self.asked:
            parts.append(f"{self.asked} questions")
        if self.labels:
            parts.append(", ".join(f"{label} {count}" for label, count in sorted(self.labels.items())))
        if self.unreadable:
            parts.append(f"unparsable {self.unreadable}")
        if self.generated and self.seconds > 0:
            parts.append(f"{self.generated / self.seconds:.0f} tokens/s")
        if self.failures:
            parts.append("failed " + ", ".join(f"{kind} {count}" for kind, count in self.failures.most_common()))
        if self.retried:
            parts.append("retried " + ", ".join(f"{kind} {count}" for kind, count in self.retried.most_common()))
        minutes, seconds = divmod(int(self.seconds), 60)
        parts.append(f"{minutes}:{seconds:02}")
        return " · ".join(parts)
